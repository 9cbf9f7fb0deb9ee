"""The mesh's services, made anew after what providers say of them has changed."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from meshfed.catalog import rows, virtual
from meshfed.catalog.differences import Difference, difference, union
from meshfed.catalog.model import Service
from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.versions import CURRENT, SERVICES
from meshfed.catalog.writing import Writing

NAMED = SERVICES.current("service $among(names)")
# What machines that joined imply of their service is the same of thousands: once is enough.
STATED = Plain(
    f"select provider, min(scope), {', '.join(rows.STATEMENT)} from statements"
    f" where service $among(names) and {CURRENT} group by provider, {', '.join(rows.STATEMENT)}"
)
EVERY = SERVICES.current(order="service")
LACKING = SERVICES.current("vip = '' and not headless and virtual_ips = ''", order="service")
CLOSED = Plain("delete from ports where service $among(names)")
OPENED = Into("ports", ("service", "number", "name", "protocol"))


def unite(writing: Writing, names: list[str], provider: str) -> None:
    """Within a transaction that has its revision: it is the provider's word that has changed."""
    there = map(rows.service, NAMED.rows(writing.connection, names=names))
    before = {str(service.name): service for service in there}
    moved = difference(before, _addressed(writing, names, _said(writing.connection, names)))
    if not moved:
        return
    writing.replace(SERVICES, [((), moved)], lambda _, service: rows.service_row(service))
    _ports(writing.connection, moved)
    for name, _ in moved.joined:
        writing.tell("service", name, "joined", provider)
    for name, *_ in moved.altered:
        writing.tell("service", name, "changed", provider)
    for name, _ in moved.left:
        writing.tell("service", name, "left", provider)
    writing.shape_moved()


def readdress(writing: Writing) -> None:
    """All services, after the ranges of virtual IPs have changed."""
    writing.shape_moved()
    unite(writing, [name for name, *_ in EVERY.rows(writing.connection)], "")


def address(writing: Writing) -> None:
    """Those that have no virtual IP and should: written by a version before, or while all full.

    Of the others the line that says so stands.
    """
    names = lacking(writing.connection)
    if names and (room := virtual.room(writing, len(names))):
        writing.shape_moved()
        unite(writing, names[:room], "")


def lacking(connection: Connection) -> list[str]:
    return [name for name, *_ in LACKING.rows(connection)]


def _said(connection: Connection, names: list[str]) -> Mapping[str, Service]:
    said: dict[str, list[tuple[str, str, Service]]] = {name: [] for name in names}
    for who, scope, name, *rest in STATED.rows(connection, names=names):
        said[name].append((who, scope, rows.statement((name, *rest))))
    unions = ((name, union(rows.service_name(name), told)) for name, told in said.items())
    return {name: service for name, service in unions if service is not None}


def _addressed(
    writing: Writing, names: Iterable[str], there: Mapping[str, Service]
) -> Mapping[str, Service]:
    """With the mesh's own addresses, where nobody else gives one."""
    bare = {name for name, each in there.items() if not (each.vip or each.headless)}
    given = virtual.give(writing, bare, set(names) - bare)
    return {name: replace(each, virtual=given.get(name, ())) for name, each in there.items()}


def _ports(connection: Connection, moved: Difference[str, Service]) -> None:
    if gone := [name for name, *_ in (*moved.altered, *moved.left)]:
        CLOSED.run(connection, names=gone)
    joined = [service for _, service in moved.joined]
    changed = [service for _, _, service in moved.altered]
    opened = [
        (str(service.name), port.number, port.name, port.protocol.value)
        for service in (*joined, *changed)
        for port in service.ports
    ]
    if opened:
        OPENED.on(connection, opened)
