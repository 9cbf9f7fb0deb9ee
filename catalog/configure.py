"""The mesh's own settings, made rows, and what becomes of what is known under other ones."""

from sqlalchemy import delete, insert, select, update

from meshfed.catalog import claims, preferences
from meshfed.catalog.preferences import Preferences
from meshfed.catalog.ranges import Ranges
from meshfed.catalog.schema import preferences as preferred
from meshfed.catalog.schema import state
from meshfed.catalog.unions import address, readdress
from meshfed.catalog.writing import Writing


def configure(
    writing: Writing,
    trust_domain: str,
    permissive: bool,
    federation: Preferences,
    virtual_ranges: Ranges,
) -> None:
    now = writing.connection.execute(select(state)).mappings().one()
    wanted = {
        "trust_domain": trust_domain,
        "permissive": permissive,
        "federation": preferences.written(federation),
        "virtual_ranges": str(virtual_ranges),
    }
    moved = [name for name, value in wanted.items() if now[name] != value]
    if "virtual_ranges" not in moved:
        address(writing)
    if not moved:
        return
    writing.shape_moved()
    writing.connection.execute(update(state).values(wanted))
    for name in moved:
        told = "nothing" if wanted[name] == "" else str(wanted[name])
        told = told if name == "federation" else told.lower()
        writing.tell("mesh", name, f"changed to {told}")
    if "virtual_ranges" in moved:
        readdress(writing)
    if "federation" in moved:
        writing.connection.execute(delete(preferred))
        writing.connection.execute(insert(preferred), preferences.rows(federation))
        claims.reconsider(writing, claims.contested(writing.connection), {}, federation)
