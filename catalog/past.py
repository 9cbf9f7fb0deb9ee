"""The catalog as it was: its tables at a moment, in temporary ones that hide the real ones.

What reads the present then reads the past, unchanged: `reading.read`, and every view's own SQL.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, and_, case, literal, null, or_, select, text
from sqlalchemy.exc import ProgrammingError

from meshfed.catalog import preferences, rows, specify
from meshfed.catalog.database import Database
from meshfed.catalog.moment import Moment, Named, Unknown, found
from meshfed.catalog.reader import Answer
from meshfed.catalog.schema import (
    changes,
    endpoints,
    grants,
    orders,
    policies,
    ports,
    proxies,
    replicas,
    scope_states,
    scopes,
    services,
    shares,
    state,
    statements,
    workloads,
)
from meshfed.catalog.schema import preferences as preferred
from meshfed.catalog.spread import grant_rows, share_rows
from meshfed.catalog.views import FLAGS, VIEWS

T = TypeVar("T")
Rows = Iterable[Mapping[str, Any]]

# What the views join by: the real tables' indexes are of the present.
INDEXED = {
    "endpoints": ("service", "workload", "identity", "provider, scope"),
    "services": ("service",),
    "workloads": ("workload", "identity"),
    "ports": ("service",),
}
# Columns of which no past is kept.
UNKEPT: Mapping[str, tuple[str, ...]] = {
    "mesh_workloads": ("joined_by", "joined_at", "lease_until", "proxy", "state", "reason"),
    "mesh_providers": ("age_s",),
}


def at(url: str, asked: Named, act: Callable[[Connection, Moment], T]) -> T:
    """`act` on the catalog as it was then. Raises Unknown, Away."""

    def look(connection: Connection) -> T:
        moment = found(connection, asked)
        with shadowed(connection, moment):
            return act(connection, moment)

    return looked(url, look)


def looked(url: str, look: Callable[[Connection], T]) -> T:
    """What is found in one snapshot. Raises Unknown, Away."""
    with closing(Database(url)) as database:
        try:
            return database.read(look)
        except ProgrammingError as error:
            raise Unknown(_why(error)) from error


def _why(error: ProgrammingError) -> str:
    told = str(error.orig).partition("\n")[0]
    if getattr(error.orig, "sqlstate", "") == "42501":  # insufficient_privilege; SQLite has none
        return f"{told}: with the views alone, ask mesh_endpoint_history"
    return told  # a table that is not there


def listing(connection: Connection, view: str, order: str) -> Answer:
    """The rows of a view as they were; within `shadowed`."""
    shown = next(one for one in VIEWS if one.name == view).select(connection.dialect.name)
    sql = f"select * from ({shown}) as v order by {order}"
    asked = connection.execute(text(sql.replace(":", r"\:")))
    columns = tuple(asked.keys())
    return Answer(columns, tuple(tuple(map(_cell(view), columns, row)) for row in asked.all()))


def _cell(view: str) -> Callable[[str, Any], Any]:
    unkept = UNKEPT.get(view, ())

    def cell(column: str, value: Any) -> Any:
        if column in unkept:
            return None
        return bool(value) if column in FLAGS else value

    return cell


@contextmanager
def shadowed(connection: Connection, moment: Moment) -> Iterator[None]:
    """Hide the tables behind what they were; where this fails, the transaction undoes it."""
    shadows = Shadows(connection)
    shadows.fall(moment)
    yield
    shadows.lift()


# The rows of each table, as they were


def standing(table: Table, moment: Moment) -> Select[Any]:
    """The versions in force, as if none had ended since."""
    ends = {"valid_to_revision", "valid_to"}
    columns = [null().label(c.name) if c.name in ends else c for c in table.columns]
    begun = table.c.valid_from_revision <= moment.revision
    ended = table.c.valid_to_revision
    return select(*columns).where(begun, or_(ended.is_(None), ended > moment.revision))


def _stood(moment: Moment) -> Any:
    """How scopes stood is told by time: their troubles make no revisions."""
    ended = scope_states.c.valid_to
    begun = scope_states.c.valid_from <= moment.at
    return and_(begun, or_(ended.is_(None), ended > moment.at))


def _scopes(moment: Moment) -> Select[Any]:
    # While all is well it moves every few seconds, and is not kept.
    last_good = case((scope_states.c.state == "good", null()), else_=scope_states.c.last_good)
    given = {
        "rejected": literal(""),
        "revision": null(),
        "last_good": last_good,
    }
    columns = [
        given[c.name].label(c.name) if c.name in given else scope_states.c[c.name]
        for c in scopes.columns
    ]
    return select(*columns).where(_stood(moment))


def _orders(moment: Moment) -> Select[Any]:
    nobody = literal("")
    paused = scope_states.c.paused
    columns = (scope_states.c.provider, paused, nobody.label("who"), nobody.label("at"))
    return select(*columns).where(paused, _stood(moment)).distinct()


def _ports(connection: Connection) -> Rows:
    for row in connection.execute(select(services)).mappings():
        for port in rows.ports(row["ports"]):
            yield {
                "service": row["service"],
                "number": port.number,
                "name": port.name,
                "protocol": port.protocol.value,
            }


def _state(connection: Connection, moment: Moment) -> dict[str, Any]:
    now = connection.execute(select(state)).mappings().one()
    domain = _setting(connection, moment, "trust_domain")
    permissive = _setting(connection, moment, "permissive") == "true"
    federation = _setting(connection, moment, "federation").removeprefix("nothing")
    settings = {"trust_domain": domain, "permissive": permissive, "federation": federation}
    return {**now, **settings, "revision": moment.revision, "at": moment.at}


def _setting(connection: Connection, moment: Moment, name: str) -> str:
    """What the mesh's own settings were; these lines are never pruned."""
    told = select(changes.c.change).where(
        changes.c.what == "mesh", changes.c.object == name, changes.c.revision <= moment.revision
    )
    last = connection.execute(told.order_by(changes.c.id.desc()).limit(1)).scalar() or ""
    return str(last).removeprefix("changed to ")


class Shadows:
    """Temporary tables with the names of the real ones, which both databases look at first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._schema = "temp" if self._sqlite else "pg_temp"
        self._made: list[str] = []

    def fall(self, moment: Moment) -> None:
        if not self._sqlite:
            self._connection.execute(FIRST)
        now = _state(self._connection, moment)
        for table in (statements, services, workloads, endpoints, policies):
            self._make(table, standing(table, moment))
        self._make(scopes, _scopes(moment))
        self._make(orders, _orders(moment))
        for table in (state, ports, grants, shares, preferred, proxies, replicas):
            self._make(table, select(table).where(text("1 = 0")))
        self._fill(state, [now])
        self._fill(preferred, preferences.rows(preferences.read(now["federation"])))
        self._fill(ports, _ports(self._connection))
        in_force = specify.in_force(self._connection)
        self._fill(grants, (row._asdict() for row in grant_rows(in_force)))
        self._fill(shares, (row._asdict() for row in share_rows(in_force)))

    def lift(self) -> None:
        for name in self._made:
            self._connection.execute(text(f"drop table {self._schema}.{name}"))

    def _make(self, table: Table, content: Select[Any]) -> None:
        name = table.name
        sql = content.compile(self._connection, compile_kwargs={"literal_binds": True})
        self._connection.exec_driver_sql(f"create temporary table {name} as {sql}")
        self._made.append(name)
        for number, columns in enumerate(INDEXED.get(name, ())):
            index = f"past_{name}_{number}"
            at = f"{self._schema}.{index}" if self._sqlite else index
            self._connection.execute(text(f"create index {at} on {name} ({columns})"))
        if name in INDEXED and not self._sqlite:
            self._connection.execute(text(f"analyze {name}"))

    def _fill(self, table: Table, content: Rows) -> None:
        names = [column.name for column in table.columns]
        values = ", ".join(f":{name}" for name in names)
        into = f"insert into {self._schema}.{table.name} ({', '.join(names)}) values ({values})"
        if new := [dict(row) for row in content]:
            self._connection.execute(text(into), new)


# A search path may name pg_temp last; for this transaction it comes first.
FIRST = text(
    "select set_config('search_path', 'pg_temp, ' || current_setting('search_path'), true)"
)
