"""One provider's way into the catalog: doubts, orders, faults."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meshfed.catalog.model import (
    Endpoint,
    Evidence,
    Identity,
    Known,
    Observation,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation import feed
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.admit import Admitted
from meshfed.federation.demo.control import until
from meshfed.federation.feed import Feed
from meshfed.federation.presence import Presence

SHOP = ServiceName("bookstore", "shop")
SCOPE = "rack/list"
FASTER = 1000  # the feed's clock: half a minute of doubt is over in 30 ms


class Scripted:
    """A provider that sees what the test says."""

    def __init__(self, *, name: str = "rack", options: Mapping[str, object], base: Path) -> None:
        self.name = name
        self.refreshed = 0
        self._seen: asyncio.Queue[Observation] = asyncio.Queue()
        self._last: Observation | None = None

    def see(self, *numbers: int, evidence: Evidence = Evidence.LISTED, fault: str = "") -> None:
        workloads = {number: host(number) for number in numbers}
        self._seen.put_nowait(
            Observation(
                SCOPE,
                services=frozenset({Service(SHOP, (Port(8080),))}) if numbers else frozenset(),
                workloads=frozenset(workloads.values()),
                endpoints=frozenset(endpoint(n, each) for n, each in workloads.items()),
                evidence=evidence,
                fault=fault,
            )
        )

    async def observe(self) -> AsyncIterator[Observation]:
        while True:
            self._last = await self._seen.get()
            yield self._last

    def show(self, observation: Observation) -> None:
        self._seen.put_nowait(observation)

    @property
    def untold(self) -> int:
        return self._seen.qsize()

    async def refresh(self, scope: str) -> None:
        assert self._last is not None
        assert self._last.scope == scope
        self.refreshed += 1
        self._seen.put_nowait(self._last)


def host(number: int) -> Workload:
    return Workload(f"store-{number}", "rack", SCOPE, identity=Identity("bookstore", "shop"))


def endpoint(number: int, workload: Workload) -> Endpoint:
    address = f"10.0.0.{number}"
    return Endpoint(
        SHOP, 8080, address, 8080, workload.id, "rack", SCOPE, identity=workload.identity
    )


class Fed:
    """A feed that runs, its provider, and the catalog behind it."""

    def __init__(self, catalog: Catalog, url: str) -> None:
        self.catalog, self.url = catalog, url
        self.provider = Scripted(options={}, base=Path())
        self.begin()

    def begin(self) -> None:
        self.feed = Feed(
            self.provider,
            "scripted",
            self.catalog,
            Presence(Metrics(CollectorRegistry())),
            lambda: FASTER * time.monotonic(),
        )
        self.running = asyncio.create_task(self.feed.run())

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def restart(self) -> None:
        await self.end()
        self.begin()

    async def until(self, *numbers: int, doubt: str | None = None) -> Known:
        """Until the catalog holds exactly these, with this doubt."""
        async for _ in self.catalog.follow():
            known = await self.catalog.known("rack", SCOPE)
            if known is None:
                continue
            held = {int(e.address.rpartition(".")[2]) for e in known.endpoints}
            if held == set(numbers) and (doubt is None or known.doubt == doubt):
                return known
        raise AssertionError("the catalog is never done")


@pytest.fixture
async def fed(tmp_path: Path) -> AsyncIterator[Fed]:
    url = f"sqlite:///{tmp_path}/catalog.db"
    migrate(url)
    catalog = Catalog(url)
    await catalog.configure("shop.example", permissive=False)
    made = Fed(catalog, url)
    yield made
    await made.end()
    catalog.close()


async def test_what_is_seen_reaches_the_catalog(fed: Fed) -> None:
    fed.provider.see(1, 2)
    await fed.until(1, 2, doubt="")
    await fed.feed.observed.wait()
    assert (fed.feed.standing.endpoints, fed.feed.standing.doubts) == (2, 0)


async def test_a_doubted_list_is_asked_for_again_and_believed_in_the_end(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BACKOFF", (0.02,))
    fed.provider.see(1, 2)
    await fed.until(1, 2)
    fed.provider.see()
    known = await fed.until(1, 2, doubt="all 2 endpoints vanished at once")
    assert len(known.stale) == 2
    await fed.until(doubt="")
    assert fed.provider.refreshed >= 2


async def test_a_fault_is_doubt_until_an_operator_accepts_it(fed: Fed) -> None:
    fed.provider.see(1, 2)
    await fed.until(1, 2)
    fed.provider.see(evidence=Evidence.FAULT, fault="the file has vanished")
    await fed.until(1, 2, doubt="the file has vanished")
    await fed.catalog.accept(SCOPE, who="ops")
    await fed.until(doubt="")


async def test_what_an_operator_accepted_fails_no_more_until_it_is_something_else(
    fed: Fed,
) -> None:
    async def stands(state: str) -> None:
        sql = "select state from mesh_providers"

        async def said() -> bool:
            return (await asyncio.to_thread(query, fed.url, sql)).rows == ((state,),)

        await until(state, said)  # a state moves no revision

    fed.provider.see(1)
    await fed.until(1)
    fed.provider.see(evidence=Evidence.FAULT, fault="there are none")
    await fed.until(1, doubt="there are none")
    await stands("failing")
    await fed.catalog.accept(SCOPE, who="ops")
    await stands("good")
    await fed.restart()  # it is asked for what it saw last
    before = fed.feed.standing

    async def settled() -> bool:
        return fed.feed.standing is not before

    await until("what it saw to be settled", settled)  # of which nothing comes
    await stands("good")
    assert not fed.feed.standing.doubts
    fed.provider.see(evidence=Evidence.FAULT, fault="no such file")
    await fed.until(doubt="no such file")
    await stands("failing")


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        pytest.param("", "2 of 3 vanished", ["observation doubted"], id="doubted, so not believed"),
        pytest.param("2 of 3 vanished", "", ["doubt settled", "believed"], id="settled"),
        pytest.param("gone", "gone", ["believed"], id="something else, beside a known doubt"),
        pytest.param("", "", ["believed"], id="nothing doubtful"),
    ],
)
def test_a_decision_is_logged_as_what_it_is(before: str, after: str, events: list[str]) -> None:
    with capture_logs() as logged:
        feed.tell(Known("rack", SCOPE, doubt=before), Known("rack", SCOPE, doubt=after), 7)
    assert [line["event"] for line in logged] == events


async def test_what_was_never_whole_has_no_age(fed: Fed) -> None:
    fed.provider.see(evidence=Evidence.FAULT, fault="no such file")
    await fed.until(doubt="no such file")
    assert fed.feed.standing.last_good is None


async def test_a_paused_provider_is_believed_when_it_is_resumed(fed: Fed) -> None:
    fed.provider.see(1)
    await fed.until(1)
    await fed.catalog.pause("rack", who="ops")
    fed.provider.see(1, 2, evidence=Evidence.STATED)
    await asyncio.sleep(0)
    await fed.catalog.resume("rack", who="ops")
    await fed.until(1, 2)


async def test_many_scopes_are_believed_together(fed: Fed) -> None:
    many = [Observation(f"rack/{n}", evidence=Evidence.STATED) for n in range(250)]
    for each in many:
        fed.provider.show(each)
    revisions = set()
    async for revision in fed.catalog.follow():
        revisions.add(revision)
        scopes = [each.scope for each in many]
        if len(await fed.catalog.all_known("rack", scopes)) == len(many):
            break
    assert len(await fed.catalog.all_known("rack", [many[0].scope, "rack/none"])) == 1
    assert max(revisions) < 50


async def test_what_waits_longest_is_believed_first(
    fed: Fed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "TOGETHER", 1)
    scopes = ["rack/z", "rack/b", "rack/a"]
    for scope in scopes:
        fed.provider.show(Observation(scope, evidence=Evidence.STATED))
    async for _ in fed.catalog.follow():
        if len(await fed.catalog.all_known("rack", scopes)) == len(scopes):
            break
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as database:
        told = database.execute("select object from mesh_changes order by revision").fetchall()
    assert [scope for (scope,) in told if scope in scopes] == scopes


async def test_a_provider_is_heard_as_fast_as_can_be_written(
    fed: Fed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may put together what happens meanwhile; what was told here would be told in vain."""
    monkeypatch.setattr(feed, "TOGETHER", 2)
    monkeypatch.setattr(feed, "AHEAD", 4)
    scopes = [f"rack/{n}" for n in range(20)]
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as another:
        another.execute("begin immediate")
        for scope in scopes:
            fed.provider.show(Observation(scope, evidence=Evidence.STATED))
        await asyncio.sleep(0.05)
        assert fed.provider.untold == 16
        another.execute("rollback")
    async for _ in fed.catalog.follow():
        if len(await fed.catalog.all_known("rack", scopes)) == len(scopes):
            break


async def test_a_large_scope_is_believed_alone(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LARGE", 1)
    fed.provider.show(Observation("rack/a", evidence=Evidence.STATED))
    fed.provider.see(1, 2)
    await fed.until(1, 2, doubt="")


def test_of_many_decisions_those_that_are_alike_are_one_line() -> None:
    def settled(n: int, doubt: str) -> feed.Settled:
        known = Known("rack", f"rack/{n}", doubt=doubt, stale=frozenset({("a", 1, "b", n)}))
        before = Known("rack", f"rack/{n}")
        return feed.Settled(Observation(before.scope), before, Admitted(known), doubt)

    with capture_logs() as logged:
        feed.tell_many([settled(n, "away" if n < 20 else "") for n in range(30)])
    assert [(each["event"], each["scopes"]) for each in logged] == [
        ("observations doubted", 20),
        ("believed", 10),
    ]
