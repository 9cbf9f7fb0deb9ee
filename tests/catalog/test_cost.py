"""What a change costs is counted, in statements and rows: it does not grow with the catalog."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from meshfed.catalog import claims, joins, leases, plain, reading, register, states, unions
from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Mesh,
    Port,
    Rejected,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.store import Catalog

FEW, MANY = 3, 60  # scopes


def scope(number: int, *, endpoints: int = 10, weight: int = 1) -> Known:
    """A service of its own; `weight` is its first endpoint's."""
    name, who = ServiceName(f"s{number}", "shop"), Identity(f"s{number}", "shop")
    where = f"rack/{number}"
    hosts = [Workload(f"h{number}-{n}", "rack", where, identity=who) for n in range(endpoints)]
    there = [
        Endpoint(name, 80, f"10.{number}.{n >> 8}.{n & 255}", 80, host.id, "rack", where,
                 identity=who, weight=1 if n else weight)
        for n, host in enumerate(hosts)
    ]  # fmt: skip
    services = frozenset({Service(name, (Port(80),))})
    return Known("rack", where, services, frozenset(hosts), frozenset(there))


async def believe(catalog: Catalog, known: Known) -> int | None:
    return await catalog.believe(known, kind="hosts", cause="a test")


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]
    finally:
        engine.dispose()


@dataclass
class Counted:
    """What went to the driver, and came back, since it was last looked at."""

    statements: int = 0
    read: int = 0
    written: list[str] = field(default_factory=list)

    def taken(self) -> "Counted":
        now = dataclasses.replace(self)
        self.statements, self.read, self.written = 0, 0, []
        return now


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counter = Counted()
    rows, run = plain.Plain.rows, plain.Plain.run
    each, lots, into = plain.Each.on, plain.Several.on, plain.Into.on

    def reading(self: Any, connection: Any, **values: Any) -> Any:
        found = rows(self, connection, **values)
        counter.statements += 1
        counter.read += len(found)
        return found

    def running(self: Any, connection: Any, **values: Any) -> None:
        counter.statements += 1
        counter.written.append(self._sqlite)
        run(self, connection, **values)

    def several(self: Any, connection: Any, values: Any) -> None:
        counter.statements += 1
        counter.written += [self._sqlite] * len(values)
        each(self, connection, values)

    def many(self: Any, connection: Any, values: Any, same: Any = ()) -> None:
        """However many are taken in one go."""
        one = getattr(self, "_several", self)._one
        told = counter.statements + 1, [*counter.written, *[one._sqlite] * len(values)]
        (into if isinstance(self, plain.Into) else lots)(self, connection, values, same)
        counter.statements, counter.written = told

    monkeypatch.setattr(plain.Plain, "rows", reading)
    monkeypatch.setattr(plain.Plain, "run", running)
    monkeypatch.setattr(plain.Each, "on", several)
    monkeypatch.setattr(plain.Into, "on", many)
    monkeypatch.setattr(plain.Several, "on", many)
    return counter


async def one_change(catalog: Catalog, counted: Counted, scopes: int) -> tuple[Counted, Counted]:
    """Written, and read again, in a catalog of so many scopes."""
    for number in range(scopes):
        await believe(catalog, scope(number))
    mesh: Mesh = await catalog.read()
    counted.taken()
    assert await believe(catalog, scope(1, weight=5)) == scopes + 1
    written = counted.taken()
    newer, changed = await catalog.advance(mesh)
    assert changed.endpoints == {ServiceName("s1", "shop")}
    again = counted.taken()
    assert newer == await catalog.read()
    return written, again


async def test_a_change_costs_the_same_in_a_large_catalog_as_in_a_small_one(
    url: str, counted: Counted
) -> None:
    with closing(Catalog(url)) as catalog:
        small = await one_change(catalog, counted, FEW)
        for number in range(FEW, MANY):
            await believe(catalog, scope(number))
        mesh = await catalog.read()
        counted.taken()
        await believe(catalog, scope(1, weight=6))
        written = counted.taken()
        await catalog.advance(mesh)
        assert (written, counted.taken()) == small


async def test_a_change_of_an_endpoint_writes_four_rows(catalog: Catalog, counted: Counted) -> None:
    written, again = await one_change(catalog, counted, FEW)
    tables = sorted(sql.partition(" set ")[0].partition(" (")[0] for sql in written.written)
    assert tables == ["insert into changes", "insert into endpoints", "insert into scopes",
                      "update endpoints"]  # fmt: skip
    # The state, the version that ended and the one that began.
    assert again.read == 1 + 2


async def test_what_is_known_already_is_one_question_and_no_row(
    catalog: Catalog, counted: Counted
) -> None:
    await believe(catalog, scope(1))
    assert await catalog.known("rack", "rack/1") == scope(1)
    counted.taken()
    assert await believe(catalog, scope(1)) is None
    assert counted.taken() == Counted(statements=1, read=1)


async def test_a_first_load_takes_as_many_statements_for_many_endpoints_as_for_few(
    catalog: Catalog, counted: Counted
) -> None:
    taken = []
    for number, endpoints in enumerate((10, 300)):
        counted.taken()
        await believe(catalog, scope(number, endpoints=endpoints))
        taken.append(counted.taken().statements)
    assert taken[0] == taken[1] <= 24


async def test_many_scopes_take_as_many_statements_as_few(
    catalog: Catalog, counted: Counted
) -> None:
    taken = []
    for some in (range(5), range(5, 40)):
        counted.taken()
        scopes = [scope(number) for number in some]
        await catalog.believe(*scopes, kind="hosts", cause="a test")
        taken.append(counted.taken().statements)
    assert taken[0] == taken[1]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What SQLite is told, statement by statement."""
    told: list[str] = []

    def opened(connection: Any, _: object) -> None:
        connection.set_trace_callback(told.append)

    event.listen(Engine, "connect", opened)
    yield told
    event.remove(Engine, "connect", opened)


async def test_sqlite_is_told_of_many_rows_in_few_statements(
    sqlite_url: str, said: list[str]
) -> None:
    """After each, the thread that writes waits until the event loop has a moment."""
    with closing(Catalog(sqlite_url)) as catalog:
        await catalog.believe(*map(scope, range(MANY)), kind="hosts", cause="a test")
        mesh, changed = await catalog.read(), [scope(n, weight=5) for n in range(MANY)]
        said.clear()
        await catalog.believe(*changed, kind="hosts", cause="a test")
        assert len(said) <= MANY
        newer, _ = await catalog.advance(mesh)
        assert {e for known in changed for e in known.endpoints} == {
            e for each in newer.endpoints.values() for e in each
        }
    written = "select count(*), count(distinct service) from endpoints where valid_to_revision"
    assert ask(sqlite_url, f"{written} is not null") == [(MANY, MANY)]


async def test_a_scope_that_another_process_wrote_is_read_before_it_is_written(
    url: str, catalog: Catalog
) -> None:
    with closing(Catalog(url)) as other:
        await believe(catalog, scope(1))
        await believe(other, scope(1, weight=2))
        assert await catalog.known("rack", "rack/1") == scope(1, weight=2)
        await believe(other, scope(1, weight=3))
        assert await believe(catalog, scope(1)) == 4
        assert await believe(other, scope(1)) is None
    history = "select weight, valid_from_revision, valid_to_revision from endpoints"
    first = " where address = '10.1.0.0' order by id"
    assert ask(url, history + first) == [(1, 1, 2), (2, 2, 3), (3, 3, 4), (1, 4, None)]


async def test_what_another_process_says_was_left_out_is_not_taken_for_ours(
    url: str, catalog: Catalog
) -> None:
    wrong = (Rejected("hosts.yaml:3", "port", "not a number"),)
    with closing(Catalog(url)) as other:
        await believe(catalog, scope(1))
        assert await believe(other, dataclasses.replace(scope(1), rejected=wrong)) is None
        assert await believe(catalog, scope(1)) is None
    assert ask(url, "select left_out from scopes") == [("",)]


async def test_a_change_that_was_not_committed_is_not_taken_for_known(
    url: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await believe(catalog, scope(1))
    with monkeypatch.context() as broken:
        broken.setattr(claims, "write", _fails)
        with pytest.raises(RuntimeError, match="a bug"):
            await believe(catalog, scope(1, weight=2))
    assert await catalog.known("rack", "rack/1") == scope(1)
    assert await believe(catalog, scope(1, weight=2)) == 2
    assert ask(url, "select max(weight) from mesh_endpoints") == [(2,)]


def _fails(*_: object) -> None:
    raise RuntimeError("a bug")


ASKED = ("since", "provider", "scope", "name")
SCAN = re.compile(r"SCAN (?!\w+ VIRTUAL|endpoints USING INDEX endpoints_contested)")


def test_no_question_of_a_change_goes_through_a_table(sqlite_url: str) -> None:
    questions = {
        "keys": (claims.OTHERS,),
        "name": (claims.CONTESTED,),
        "names": (
            register.ELSEWHERE,
            unions.STATED,
            reading.ITS_WORKLOADS.some,
            reading.ITS_SERVICES.some,
        ),
        "scopes": (states.SETTLED,),
        "since": (reading.MOVED_ENDPOINTS, reading.ITS_WORKLOADS.moved),
    }
    engine = create_engine(sqlite_url)
    with closing(engine.raw_connection()) as connection:
        for asked in (each for some in questions.values() for each in some):
            values = dict.fromkeys(("keys", "names", "scopes"), "[]") | dict.fromkeys(ASKED, "")
            cursor = connection.cursor()
            cursor.execute(f"explain query plan {asked._sqlite}", values)
            plan = [str(row[-1]) for row in cursor.fetchall()]
            assert [step for step in plan if SCAN.match(step)] == []
    engine.dispose()


def test_a_machine_is_found_by_its_id_and_not_among_all_that_are_registered(
    sqlite_url: str,
) -> None:
    engine = create_engine(sqlite_url)
    with closing(engine.raw_connection()) as connection:
        for asked, values in ((joins.HERE, {"ids": "[]"}), (leases.EVERY._plain, {})):
            plan = connection.cursor().execute(f"explain query plan {asked._sqlite}", values)
            found = " ".join(str(row[-1]) for row in plan.fetchall())
            assert "USING INDEX workloads_workload (workload=?)" in found
            assert "SCAN w" not in found
    engine.dispose()
