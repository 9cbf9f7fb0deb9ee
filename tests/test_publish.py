"""What connected proxies are told when something changes, and what is known of who has it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs
from publishing import (
    BUYER,
    BUYING,
    DOMAIN,
    KNOWN,
    LEDGER,
    SELLER,
    SELLING,
    Published,
    answers,
    host,
    offered,
    opened,
    peer,
)
from structlog.testing import capture_logs

from meshfed.catalog.model import (
    Backend,
    Identity,
    Interception,
    Mesh,
    ObjectName,
    Port,
    Service,
    ServiceName,
    Specified,
    TrafficSplit,
)
from meshfed.catalog.reports import CertificateState
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.demo.control import until
from meshfed.federation.publish import Publisher
from meshfed.federation.sections import Certificates
from meshfed.federation.subscriber import Subscriber, speakers
from meshfed.federation.worlds import Worlds
from meshfed.xds.feed import Refusal, Unready
from meshfed.xds.resource import Type


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    made = Published(tmp_path)
    yield made
    made.catalog.close()


@pytest.fixture
async def publisher(published: Published) -> AsyncIterator[Publisher]:
    made = await published.open()
    await made.begin()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_nobody_is_told_anything_before_every_source_was_observed(
    published: Published,
) -> None:
    publisher = await published.open()
    with pytest.raises(Unready, match="not every source"):
        await opened(publisher, peer(BUYING))


async def test_a_proxy_is_told_what_its_identity_may_reach(publisher: Publisher) -> None:
    world = (await opened(publisher, peer(BUYING))).world
    assert list(world.of(Type.ENDPOINTS)) == ["ledger.shop|3306"]
    assert world.of(Type.SECRET).keys() == {"certificate", "validation/ledger.shop|3306"}


@pytest.mark.parametrize(
    ("differently", "why"),
    [
        pytest.param({"uris": ()}, "one URI and one DNS name", id="no identity"),
        pytest.param({"dns": ()}, "one URI and one DNS name", id="a workload's own certificate"),
        pytest.param(
            {"uris": (SELLER.uri(DOMAIN),)}, "buyer-1 is buyer.shop now, not", id="other identity"
        ),
        pytest.param(
            {"uris": (BUYER.uri("evil.example"),)}, "not an identity of", id="other trust domain"
        ),
        pytest.param(
            {"dns": (f"0123456789abcdef.workload.{DOMAIN}",)}, "no provider knows", id="unknown"
        ),
        pytest.param(
            {"dns": (f"{BUYING.id}.workload.evil.example",)}, "no provider knows", id="other dns"
        ),
    ],
)
async def test_a_certificate_that_is_not_a_workloads_is_refused(
    publisher: Publisher, differently: dict[str, object], why: str
) -> None:
    with pytest.raises(Refusal, match=why):
        await opened(publisher, peer(BUYING, **differently))


async def test_the_node_id_counts_for_nothing(publisher: Publisher) -> None:
    own = await opened(publisher, peer(BUYING))
    lying = await opened(publisher, peer(BUYING, node_id=SELLING.id))
    assert lying.world.resources == own.world.resources


async def test_a_new_endpoint_moves_load_assignments_and_nothing_else_of_its_callers(
    published: Published, publisher: Publisher
) -> None:
    caller = await opened(publisher, peer(BUYING))
    before = caller.world
    second = host("ledger-2", SELLER)
    await published.catalog.believe(
        replace(
            KNOWN,
            workloads=KNOWN.workloads | {second},
            endpoints=KNOWN.endpoints | {answers(second, 2)},
        ),
        kind="test",
        cause="",
    )
    await offered(caller)
    moved = {kind for kind in Type if caller.world.of(kind) is not before.of(kind)}
    assert moved == {Type.ENDPOINTS}


async def left(published: Published, leaving: Subscriber) -> None:
    """The workload that buys is gone, and its proxy has been told so."""
    only = replace(KNOWN, workloads=frozenset({SELLING}))
    await published.catalog.believe(only, kind="test", cause="")
    await offered(leaving)


async def test_a_workload_that_leaves_ends_its_proxys_stream(
    published: Published, publisher: Publisher
) -> None:
    leaving = await opened(publisher, peer(BUYING))
    await left(published, leaving)
    assert not leaving.welcome
    assert leaving.ended.startswith("no provider knows the workload")


async def test_one_that_is_gone_is_refused_by_the_name_that_it_had(
    published: Published, publisher: Publisher
) -> None:
    leaving = await opened(publisher, peer(BUYING))
    await left(published, leaving)
    unheard_of = peer(BUYING, dns=(f"0123456789abcdef.workload.{DOMAIN}",))
    with capture_logs() as logs:
        for each in (peer(BUYING), unheard_of):
            with pytest.raises(Refusal, match="no provider knows the workload"):
                await publisher.open(each)
    refused = [each["workload"] for each in logs if each["event"] == "proxy refused"]
    assert refused == [BUYING.name, ""]


async def test_a_replica_that_was_taken_for_gone_says_everything_again(
    published: Published, publisher: Publisher
) -> None:
    caller = await opened(publisher, peer(BUYING))
    caller.receipt("CDS", "v1", 1.0, 2.0, "")
    rows = "select workload, acked_version from proxies join proxy_sync using (proxy)"

    async def written() -> bool:
        return published.rows(rows) == [("buyer-1", "v1")]

    for _ in range(2):
        await until("what is known of the proxy", written)
        assert published.rows("select count(*) > 0 from mesh_clusters") == [(1,)]
        await published.catalog.forget(["here"])
        assert published.rows(rows) == []


async def test_nothing_is_left_of_a_proxy_that_was_there_for_a_moment(
    published: Published, publisher: Publisher
) -> None:
    passing = await opened(publisher, peer(BUYING))
    passing.receipt("CDS", "v1", 1.0, 2.0, "")
    passing.close()
    (await opened(publisher, peer(SELLING))).receipt("CDS", "v1", 1.0, 2.0, "")

    async def written() -> bool:
        return SELLING.id in {proxy for (proxy,) in published.rows("select proxy from proxy_sync")}

    await until("what is known of the other", written)
    assert published.rows("select proxy from proxy_sync") == [(SELLING.id,)]


async def test_a_proxy_that_must_go_and_does_not_yet_holds_nothing_up(
    published: Published, publisher: Publisher
) -> None:
    staying, leaving = await opened(publisher, peer(SELLING)), await opened(publisher, peer(BUYING))
    await left(published, leaving)
    assert not leaving.closed  # it does not read: its stream takes a while to end
    staying.receipt("CDS", "v1", 1.0, 2.0, "")
    async with asyncio.timeout(5):
        while not published.rows("select * from mesh_proxy_sync"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_a_proxy_may_come_between_the_lanes() -> None:
    whole, one, other = (ServiceName(name, "shop") for name in ("whole", "one", "other"))
    split = TrafficSplit(ObjectName("shop", "split"), whole, (Backend(one, 1), Backend(other, 1)))
    services = {name: Service(name, (Port(80),)) for name in (whole, one, other)}
    before = Mesh(DOMAIN, services=services, workloads={BUYING.id: BUYING}, policies=(split,))
    issuer = LocalAuthority(*root(DOMAIN, datetime.now(UTC)))
    worlds = Worlds(before, Custody(issuer, DOMAIN, timedelta(hours=1)))
    after = replace(before, services={name: services[name] for name in (whole, one)}, policies=())
    worlds.endpoints_changed(after, ())
    worlds.of(worlds.kind(BUYING))  # of the shape that stands
    worlds.shape_changed(after)


async def test_permissive_is_told_at_once_and_taken_back(
    published: Published, publisher: Publisher
) -> None:
    served = await opened(publisher, peer(SELLING))
    strict = served.world.of(Type.LISTENER)
    await published.catalog.configure(DOMAIN, permissive=True)
    await offered(served)
    assert served.world.of(Type.LISTENER) != strict
    await published.catalog.configure(DOMAIN, permissive=False)
    await offered(served)
    assert served.world.of(Type.LISTENER) == strict


async def test_the_certificate_of_an_identity_that_left_meanwhile_is_retired(
    published: Published,
) -> None:
    await published.open()
    gone = CertificateState(Identity("gone", "shop"), LEDGER, "local", "claimed", "ab", 1.0, 2.0)
    await published.catalog.certify([gone])
    custody = Custody(
        await LocalAuthority.open(trust_domain=DOMAIN, safe=published.catalog, seal=published.seal),
        DOMAIN,
        Certificates().workload_lifetime,
    )
    custody.recorded(await published.catalog.certified())
    assert custody.unrecorded() == (replace(gone, state="retired"),)


async def test_a_revision_is_settled_by_its_last_acknowledgement(
    published: Published, publisher: Publisher
) -> None:
    caller, server = await opened(publisher, peer(BUYING)), await opened(publisher, peer(SELLING))
    for subscriber in (caller, server):
        subscriber.settled(subscriber.world, at=1.0)
    revision = await published.catalog.specify(Specified("files:policy"))
    assert revision is not None
    await offered(caller)
    await offered(server)
    assert await published.account.settled(revision, seconds=0) is None
    at = (published.catalog.committed_at(revision) or 0) + 0.25
    for subscriber in (caller, server):
        subscriber.settled(subscriber.world, at)
    reached = await published.account.settled(revision, seconds=5)
    assert reached is not None
    assert reached.proxies == 2
    assert 250 <= round(reached.ms) < 350, "whoever follows may see it before who wrote it knows"


async def test_a_host_that_joins_is_news_to_its_callers_though_two_lanes_take_it_in(
    published: Published, publisher: Publisher
) -> None:
    caller = await opened(publisher, peer(BUYING))
    caller.settled(caller.world, at=1.0)
    second = host("ledger-2", SELLER)
    workloads = KNOWN.workloads | {second}
    endpoints = KNOWN.endpoints | {answers(second, 2)}
    joined = replace(KNOWN, workloads=workloads, endpoints=endpoints)
    revision = await published.catalog.believe(joined, kind="test", cause="")
    assert revision is not None
    await offered(caller)
    caller.settled(caller.world, at=2.0)
    reached = await published.account.settled(revision, seconds=5)
    assert reached is not None
    assert reached.proxies == 1


async def test_a_proxy_is_rejecting_until_it_has_all_it_was_offered(publisher: Publisher) -> None:
    caller = await opened(publisher, peer(BUYING))
    caller.receipt("CDS", "v2", 1.0, 2.0, "no such thing")
    caller.receipt("CDS", "v1", 1.0, 2.0, "")  # the last good one, sent again
    assert caller.state().reason == "CDS: no such thing"
    caller.settled(caller.world, at=3.0)
    assert (caller.state().state, caller.state().reason) == ("synced", "")


async def test_a_proxy_is_in_sync_with_the_last_of_two_worlds_of_one_revision(
    publisher: Publisher,
) -> None:
    """As when its certificate is renewed: that moves no revision."""
    caller = await opened(publisher, peer(BUYING))
    first = caller.world
    renewed = replace(first, number=first.number + 1)
    caller.offer(renewed)
    caller.settled(first, at=1.0)
    assert (caller.state().state, caller.state().behind) == ("behind", first.revision)
    caller.settled(renewed, at=2.0)
    assert (caller.state().state, caller.state().behind) == ("synced", None)


async def test_receipts_and_states_are_rows(published: Published, publisher: Publisher) -> None:
    caller = await opened(publisher, peer(BUYING))
    caller.receipt("CDS", "v1", 1.0, 2.0, "")
    caller.receipt("LDS", "v2", 1.0, 2.0, "no such filter")
    async with asyncio.timeout(5):
        # Receipts move no revision, so nothing tells when they were written.
        while not (  # noqa: ASYNC110
            rows := published.rows("select state, reason from mesh_proxies")
        ):
            await asyncio.sleep(0.02)
    assert rows == [("rejecting", "LDS: no such filter")]
    sync = published.rows("select type, acked_version, nack from mesh_proxy_sync order by type")
    assert sync == [("CDS", "v1", None), ("LDS", None, "no such filter")]


async def test_of_the_streams_of_a_grpc_process_one_that_is_not_well_speaks(
    published: Published, publisher: Publisher
) -> None:
    itself = structs.replace(BUYING, interception=Interception.GRPC)
    known = replace(KNOWN, workloads=frozenset({itself, SELLING}))
    await published.catalog.believe(known, kind="test", cause="")
    async with asyncio.timeout(5):
        while (sick := await opened(publisher, peer(itself))).kind.interception != "grpc":
            await offered(sick)
    well = await publisher.open(peer(itself))
    assert speakers([sick, well]) == {itself.id: well}  # neither has acknowledged anything
    well.settled(well.world, at=3.0)
    assert speakers([sick, well]) == {itself.id: sick}
    sick.unwritten = False
    well.unwritten = True
    sick.settled(sick.world, at=3.0)
    assert speakers([sick, well]) == {itself.id: well}
    assert (sick.unwritten, well.unwritten) == (False, True)


async def test_what_the_catalog_has_of_a_proxy_is_not_written_again(publisher: Publisher) -> None:
    caller = await opened(publisher, peer(BUYING))
    caller.lost()
    assert caller.written(1) == replace(caller.state(1), whole=True)
    assert caller.written(1) is None
    assert caller.written(2) == caller.state(2), "it is of another class now"
    caller.receipt("CDS", "v2", 1.0, 2.0, "no such thing")
    assert caller.written(2) == caller.state(2)
    caller.lost()
    assert caller.written(2) == replace(caller.state(2), whole=True)


async def test_what_a_proxy_reaches_has_the_version_of_its_load_assignment(
    published: Published, publisher: Publisher
) -> None:
    caller = await opened(publisher, peer(BUYING))

    async def told() -> bool:
        (assignment,) = caller.world.of(Type.ENDPOINTS).values()
        rows = published.rows("select cluster, endpoints, version from mesh_clusters")
        return rows == [("ledger.shop|3306", 1, assignment.version)]

    await until("what it reaches", told)
    for number in (2, 1):  # another endpoint, and the first again
        moved = replace(KNOWN, endpoints=frozenset({answers(SELLING, number)}))
        await published.catalog.believe(moved, kind="test", cause="")
        await offered(caller)
        await until(f"that it reaches {number}", told)


async def test_a_proxy_that_owes_for_long_is_named_and_begun_again(
    published: Published, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfed.federation.care.LATE", 0.05)
    monkeypatch.setattr("meshfed.federation.publish.GLANCE", 0.01)
    subscriber = await opened(publisher, peer(BUYING))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tending = tasks.create_task(publisher._tend())
        await subscriber.moved.wait()
        tending.cancel()
    assert subscriber.ended.startswith("begin again: behind: has not acknowledged revision")
    assert subscriber.welcome
    assert subscriber.state().state == "behind"


async def test_a_certificate_near_its_end_is_a_state(publisher: Publisher) -> None:
    ends = datetime.now(UTC) + timedelta(days=3)
    subscriber = await opened(publisher, peer(BUYING, not_after=ends.timestamp()))
    state = subscriber.state()
    assert state.state == "expiring"
    assert "run `meshfed proxy bootstrap`" in state.reason
