"""Policies spread out into rows that SQL can join: who may call whom, and how calls are split."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from meshfed.catalog.access import Grant, access
from meshfed.catalog.model import HttpMatch, Policy, ServiceName, TrafficSplit

ANY_PORT = 0


class GrantRow(NamedTuple):
    """One source may call one destination in one way. Layer: http or tcp."""

    policy: str
    source: str
    destination: str
    layer: str
    port: int
    methods: str
    path: str
    headers: str


class ShareRow(NamedTuple):
    """One backend's part of the calls to a service."""

    policy: str
    service: str
    backend: str
    weight: int
    matches: str


def grant_rows(policies: Iterable[Policy]) -> frozenset[GrantRow]:
    granted = access(policies).grants.values()
    return frozenset(row for grants in granted for grant in grants for row in _of_grant(grant))


def share_rows(policies: Iterable[Policy]) -> frozenset[ShareRow]:
    first: dict[ServiceName, TrafficSplit] = {}
    splits = (policy for policy in policies if isinstance(policy, TrafficSplit))
    for split in sorted(splits, key=lambda split: split.name):
        first.setdefault(split.service, split)  # of two splits of one service, as view() does
    return frozenset(row for split in first.values() for row in _of_split(split))


def _of_grant(grant: Grant) -> Iterator[GrantRow]:
    for source in grant.sources:
        for port in (ANY_PORT,) if grant.ports is None else sorted(grant.ports):
            who = (str(grant.policy), str(source), str(grant.destination))
            if grant.tcp:
                yield GrantRow(*who, "tcp", port, "", "", "")
            for match in grant.http:
                yield GrantRow(*who, "http", port, *_conditions(match))


def _conditions(match: HttpMatch) -> tuple[str, str, str]:
    methods = ", ".join(sorted(match.methods)) or "*"
    headers = ", ".join(f"{name}: {regex}" for name, regex in match.headers)
    return methods, match.path_regex, headers


def _of_split(split: TrafficSplit) -> Iterator[ShareRow]:
    weights: dict[ServiceName, int] = {}
    for backend in split.backends:
        if backend.service != split.service:  # no service is a backend of itself
            weights[backend.service] = weights.get(backend.service, 0) + backend.weight
    for service, weight in weights.items():
        yield ShareRow(
            str(split.name), str(split.service), str(service), weight, ", ".join(split.matches)
        )
