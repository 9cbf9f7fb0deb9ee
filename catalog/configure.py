"""The mesh's own settings, made rows, and what becomes of what is known under other ones."""

from sqlalchemy import delete, insert, select, update

from meshfed.catalog import claims, preferences
from meshfed.catalog.preferences import Preferences
from meshfed.catalog.schema import preferences as preferred
from meshfed.catalog.schema import state
from meshfed.catalog.writing import Writing


def configure(
    writing: Writing, trust_domain: str, permissive: bool, federation: Preferences
) -> None:
    now = writing.connection.execute(select(state)).mappings().one()
    wanted = {
        "trust_domain": trust_domain,
        "permissive": permissive,
        "federation": preferences.written(federation),
    }
    moved = [name for name, value in wanted.items() if now[name] != value]
    if not moved:
        return
    writing.shape_moved()
    writing.connection.execute(update(state).values(wanted))
    for name in moved:
        told = str(wanted[name] or "nothing") if name == "federation" else str(wanted[name]).lower()
        writing.tell("mesh", name, f"changed to {told}")
    if "federation" in moved:
        writing.connection.execute(delete(preferred))
        writing.connection.execute(insert(preferred), preferences.rows(federation))
        claims.reconsider(writing, claims.contested(writing.connection), {}, federation)
