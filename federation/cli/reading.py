"""`meshfed get`: what is known, one view of the catalog at a time."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import At, CatalogUrl, Config, Output
from meshfed.federation.cli.output import (
    Finding,
    Format,
    Row,
    picked,
    rendered,
    say,
    terminal_width,
    write,
)

if TYPE_CHECKING:
    from meshfed.catalog.reader import Answer

BEAT = 0.5  # seconds between two looks at the catalog when watching


class Kind(StrEnum):
    """What can be listed."""

    SERVICES = "services"
    ENDPOINTS = "endpoints"
    WORKLOADS = "workloads"
    PROXIES = "proxies"
    IDENTITIES = "identities"
    POLICIES = "policies"
    PROVIDERS = "providers"
    CERTIFICATES = "certificates"
    SPLITS = "splits"
    ACCESS = "access"
    CLUSTERS = "clusters"
    CHANGES = "changes"


KEPT = (
    Kind.SERVICES,
    Kind.ENDPOINTS,
    Kind.WORKLOADS,
    Kind.POLICIES,
    Kind.PROVIDERS,
    Kind.SPLITS,
    Kind.ACCESS,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """How one kind is listed: by what it is sorted, what a table shows, and what fills it."""

    key: str
    table: tuple[str, ...]  # what fits on 100 columns; the other formats give every column
    filled_by: str

    def statement(self, kind: Kind) -> str:
        return f"select * from mesh_{kind} order by {self.key}"


LISTINGS = {
    Kind.SERVICES: Listing(
        "service",
        ("service", "ports", "protocol", "platforms", "endpoints", "healthy", "identities"),
        "a provider that sees one",
    ),
    Kind.ENDPOINTS: Listing(
        "service, port, address",
        ("service", "address", "port", "provider", "identity", "weight", "health", "stale"),
        "a provider that sees one",
    ),
    Kind.WORKLOADS: Listing(
        "name, platform",
        ("name", "platform", "identity", "services", "addresses", "state"),
        "a provider that sees one",
    ),
    Kind.PROXIES: Listing(
        "workload, proxy",
        ("workload", "identity", "state", "connected_since", "envoy_version", "reason"),
        "an Envoy that connects: `meshfed proxy bootstrap NAME`",
    ),
    Kind.IDENTITIES: Listing(
        "identity",
        ("identity", "services", "workloads", "certificate_not_after"),
        "a workload with an identity",
    ),
    Kind.POLICIES: Listing(
        "kind, namespace, name",
        ("kind", "namespace", "name", "state", "field", "reason", "source"),
        "SMI files in a folder named under `specification`",
    ),
    Kind.PROVIDERS: Listing(
        "provider, scope",
        ("provider", "type", "scope", "state", "endpoints", "age_s", "doubt", "reason"),
        "`meshfed serve` with `providers` in its configuration",
    ),
    Kind.CERTIFICATES: Listing(
        "identity, service, not_after",
        ("identity", "service", "issuer", "state", "not_after"),
        "a service with an identity",
    ),
    Kind.SPLITS: Listing(
        "service, policy, backend",
        ("service", "backend", "weight", "share", "matches", "policy"),
        "a TrafficSplit",
    ),
    Kind.ACCESS: Listing(
        "destination_service, port, source_identity, destination_identity, policy, path, methods",
        ("source_identity", "destination_service", "port", "methods", "path", "policy"),
        "a TrafficTarget, for a destination that has an endpoint",
    ),
    Kind.CLUSTERS: Listing(
        "proxy, cluster, priority",
        ("proxy", "cluster", "service", "priority", "endpoints"),
        "an Envoy that connects: `meshfed proxy bootstrap NAME`",
    ),
    Kind.CHANGES: Listing(
        "revision, what, object, change",
        ("at", "object", "change", "who"),
        "a provider that sees something",
    ),
}


def listed(answer: "Answer", kind: Kind, shape: Format, width: int | None) -> str:
    """The answer as it is printed; the table of an empty catalog is empty."""
    if shape is not Format.TABLE:
        return rendered(answer.columns, answer.rows, shape)
    columns = LISTINGS[kind].table
    return rendered(columns, picked(columns, as_rows(answer)), shape, width) if answer.rows else ""


def as_rows(answer: "Answer") -> list[Row]:
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def flagged(answer: "Answer") -> "Answer":
    """The same with true and false where 1 and 0 mean that; scripts should not see which it is."""
    from meshfed.catalog.views import FLAGS

    flags = {index for index, column in enumerate(answer.columns) if column in FLAGS}
    rows = (
        tuple(bool(cell) if index in flags else cell for index, cell in enumerate(row))
        for row in answer.rows
    )
    return replace(answer, rows=tuple(rows))


def what_counts(answer: "Answer") -> tuple[tuple[object, ...], ...]:
    """The rows without ages, which move though nothing has happened."""
    kept = [index for index, column in enumerate(answer.columns) if column != "age_s"]
    return tuple(tuple(row[index] for index in kept) for row in answer.rows)


def get(
    kind: Annotated[
        Kind, typer.Argument(help=f"What to list: {', '.join(Kind)}.", show_default=False)
    ],
    output: Output = Format.TABLE,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Print it again whenever it changes.")
    ] = False,
    at: At = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """List what is known: services, endpoints, workloads, proxies, policies, who may call whom, …

    Example: meshfed get endpoints -o json | jq -r '.[].address'
    """
    from meshfed.federation.cli.source import catalog_url

    url = catalog_url(catalog, config)
    if at is not None:
        _past(url, kind, at, output, watch=watch)
        return
    answers = _changes(url, kind) if watch else iter([_answer(url, kind)])
    for answer in answers:
        if watch and sys.stdout.isatty() and output is Format.TABLE:
            write("\x1b[H\x1b[2J")  # the screen's corner, and nothing on it
        write(listed(answer, kind, output, terminal_width()))
        if not answer.rows:
            say(f"no {kind} yet: they come from {LISTINGS[kind].filled_by}")


def _past(url: str, kind: Kind, at: str, output: Format, *, watch: bool) -> None:
    """The same listing as it was; on stderr, which revision that is."""
    from meshfed.federation.cli.past import as_it_was

    if watch:
        raise typer.BadParameter("what is past does not change", param_hint="--watch")
    if kind not in KEPT:
        kinds = ", ".join(sorted(KEPT))
        raise Finding(f"no history is kept of {kind}: ask for {kinds}")
    moment, answer = as_it_was(url, f"mesh_{kind}", LISTINGS[kind].key, at)
    write(listed(answer, kind, output, terminal_width()))
    say(f"as of {moment}" if answer.rows else f"no {kind} at {moment}")


def _answer(url: str, kind: Kind) -> "Answer":
    from meshfed.federation.cli.source import rows

    return flagged(rows(url, LISTINGS[kind].statement(kind)))


def _changes(url: str, kind: Kind) -> Iterator["Answer"]:
    """The answer, and every later one that differs; states of proxies move without a revision."""
    shown: Sequence[object] | None = None
    away = ""
    while True:
        try:
            answer = _answer(url, kind)
        except Finding as finding:
            if shown is None:  # wrong from the start, rather than away for a moment
                raise
            if str(finding) != away:
                away = str(finding)
                say(away)
        else:
            away = ""
            if shown != (counted := what_counts(answer)):
                shown = counted
                yield answer
        time.sleep(BEAT)
