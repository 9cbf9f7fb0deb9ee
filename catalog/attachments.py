"""Machines of a platform that people attached to services: one row a service, until detached."""

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from meshfed.catalog.model import Identity, Interception, ServiceName
from meshfed.catalog.orders import Attachment
from meshfed.catalog.schema import attachments
from meshfed.catalog.writing import Writing


class Unattached(ValueError):
    """Nobody attached that."""


class Otherwise(ValueError):
    """It is attached already, as somebody else."""


def attach(writing: Writing, new: Attachment) -> None:
    """Make this one attachment so. Raises Otherwise."""
    there = attached(writing.connection, new.resource)
    if new in there:
        return
    for other in there:
        if (other.service, other.port) != (new.service, new.port) and _runs(other) != _runs(new):
            who = f"as {other.identity or 'nobody'}, interception {other.interception}"
            raise Otherwise(f"{other} is attached {who}, and a machine is one: detach it first")
    mine = _of(new.resource, new.service, new.port)
    before = writing.connection.execute(delete(attachments).where(mine)).rowcount
    writing.connection.execute(insert(attachments).values(_row(new)))
    writing.tell("attachment", str(new), "changed" if before else "joined")
    writing.allocate()  # followers wake by revision


def detach(writing: Writing, resource: str, service: ServiceName | None) -> None:
    """Take what was attached away: to one service, or to all. Raises Unattached."""
    there = attached(writing.connection, resource)
    gone = [each for each in there if service in (None, each.service)]
    if not gone:
        of = f" to {service}" if service else ""
        raise Unattached(f"nothing is attached{of} at {resource}")
    for each in gone:
        mine = _of(each.resource, each.service, each.port)
        writing.connection.execute(delete(attachments).where(mine))
        writing.tell("attachment", str(each), "left")
    writing.allocate()


def attached(connection: Connection, resource: str = "") -> tuple[Attachment, ...]:
    """All of a machine or set; of all of them, if none is named."""
    asked = select(attachments).order_by(*attachments.primary_key.columns)
    if resource:
        asked = asked.where(attachments.c.resource == resource)
    return tuple(
        Attachment(
            row["resource"],
            ServiceName.parse(row["service"]),
            row["port"],
            row["target"],
            Identity.parse(row["identity"]) if row["identity"] else None,
            Interception(row["interception"]),
            row["weight"],
        )
        for row in connection.execute(asked).mappings()
    )


def _of(resource: str, service: ServiceName, port: int) -> ColumnElement[bool]:
    columns = attachments.c
    return and_(columns.resource == resource, columns.service == str(service), columns.port == port)


def _runs(each: Attachment) -> tuple[Identity | None, Interception]:
    return each.identity, each.interception


def _row(each: Attachment) -> dict[str, str | int]:
    return {
        "resource": each.resource,
        "service": str(each.service),
        "port": each.port,
        "target": each.target,
        "identity": str(each.identity or ""),
        "interception": each.interception.value,
        "weight": each.weight,
    }
