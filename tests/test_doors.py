"""The xDS port of a `meshfed serve` that runs, attacked from loopback: nobody gets what is not
their own."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import grpc
import pytest
from cryptography import x509
from doors import HOSTS, MORE, Connect, attacked
from live import DOMAIN, Mesh
from strangers import HOUR, Authority, Client, Papers, connected, unpacked

from meshfed.catalog.reader import query
from meshfed.federation.certificates.authority import root
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace, without
from meshfed.federation.settings import Settings
from meshfed.xds.resource import Type

STRANGER = f"spiffe://{DOMAIN}/ns/cafe/sa/barista"
# Nothing in the buyer's world may hold any of these.
STRANGERS = (b"cafe", b"barista", b"till", b"guest", b"127.0.7.3", b"127.0.7.4")

Shown = Callable[[Authority], Papers | None]
Edited = Callable[[str], str]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with attacked(tmp_path_factory.mktemp("doors")) as made:
        yield made


@pytest.fixture(scope="module")
def authority(mesh: Mesh) -> Authority:
    return asyncio.run(Authority.of(mesh))


@pytest.fixture
def connect(mesh: Mesh) -> Connect:
    return partial(connected, mesh)


def another(mine: Authority) -> Authority:
    """One of the same trust domain, that signs the same names."""
    return Authority(*root(DOMAIN, datetime.now(UTC)), mine.mesh)


def dressed(mine: Authority) -> Papers:
    """Another authority's, with our root sent along."""
    theirs = another(mine).papers("buyer")
    return Papers(theirs.chain + pem((mine.certificate,)), theirs.key)


DIALECTS = pytest.mark.parametrize(
    "delta", [pytest.param(True, id="delta"), pytest.param(False, id="sotw")]
)


# Whoever has no good certificate gets nothing


@DIALECTS
@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(lambda ours: None, id="no certificate"),
        pytest.param(lambda ours: another(ours).papers("buyer"), id="another authority's"),
        pytest.param(lambda ours: ours.papers("buyer", ends=-HOUR / 2), id="an expired one"),
        pytest.param(lambda ours: ours.papers("buyer", begins=HOUR / 2), id="one of tomorrow"),
        pytest.param(lambda ours: dressed(ours), id="another authority's, with our root behind it"),
    ],
)
async def test_tls_ends_before_a_byte_of_xds(
    connect: Connect, authority: Authority, shown: Shown, delta: bool
) -> None:
    async with connect(shown(authority), delta=delta) as client:
        with suppress(grpc.aio.AioRpcError):
            await client.ask(Type.SECRET, "*")
        code, _ = await client.ending()
        assert code == grpc.StatusCode.UNAVAILABLE
        assert client.tunnel.heard == 0


@DIALECTS
@pytest.mark.parametrize(
    ("shown", "why"),
    [
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer")], [f"{'0' * 16}.workload.{DOMAIN}"]),
            f"no provider knows the workload {'0' * 16}",
            id="a workload that is not in the catalog",
        ),
        pytest.param(
            lambda ours: ours.issue([ours.uri("barista")], [ours.dns("buyer")]),
            "buyer is buyer.shop now, not barista.cafe",
            id="another's identity with one's own workload",
        ),
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer")], [ours.dns("barista")]),
            "barista is barista.cafe now, not buyer.shop",
            id="another's workload with one's own identity",
        ),
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer")], []), "one DNS name", id="no DNS name"
        ),
        pytest.param(lambda ours: ours.issue([], [ours.dns("buyer")]), "one URI", id="no URI"),
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer"), STRANGER], [ours.dns("buyer")]),
            "one URI",
            id="two URIs",
        ),
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer")], [ours.dns("buyer"), ours.dns("barista")]),
            "one DNS name",
            id="two DNS names",
        ),
        pytest.param(
            lambda ours: ours.issue(
                ["spiffe://evil.example/ns/shop/sa/buyer"], [ours.dns("buyer")]
            ),
            f"is not an identity of {DOMAIN}",
            id="another trust domain's URI",
        ),
        pytest.param(
            lambda ours: ours.issue(
                [ours.uri("buyer")], [f"{ours.workload('buyer').id}.workload.evil.example"]
            ),
            "no provider knows the workload",
            id="another trust domain's DNS name",
        ),
        pytest.param(
            lambda ours: ours.issue(
                [f"spiffe://{DOMAIN}/meshfed/control-plane"], [ours.dns("buyer")]
            ),
            f"is not an identity of {DOMAIN}",
            id="the control plane's own URI",
        ),
        pytest.param(
            lambda ours: ours.issue([ours.uri("buyer") + "/../barista"], [ours.dns("buyer")]),
            "is not <account>.<namespace>",
            id="a path that climbs",
        ),
    ],
)
async def test_a_certificate_that_is_no_workloads_own_is_refused(
    connect: Connect,
    authority: Authority,
    shown: Callable[[Authority], Papers],
    why: str,
    delta: bool,
) -> None:
    async with connect(shown(authority), node="buyer", delta=delta) as client:
        await client.ask(Type.SECRET, "*")
        code, said = await client.ending()
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert why in said
        assert "\n" not in said


async def test_the_certificate_that_a_workload_is_sent_does_not_open_the_door_again(
    connect: Connect, authority: Authority
) -> None:
    async with connect(authority.papers("buyer")) as client:
        secrets = await client.told(Type.SECRET, "certificate")
    (sent,) = map(unpacked, secrets)
    pair = sent.tls_certificate
    stolen = Papers(
        pair.certificate_chain.inline_bytes.decode(), pair.private_key.inline_bytes.decode()
    )
    async with connect(stolen) as client:
        await client.ask(Type.SECRET, "*")
        code, why = await client.ending()
    assert code == grpc.StatusCode.PERMISSION_DENIED
    assert "one DNS name" in why


# Whoever has one gets what is its own


@DIALECTS
async def test_anothers_node_id_changes_nothing(
    connect: Connect, authority: Authority, delta: bool
) -> None:
    papers = authority.papers("buyer")
    async with connect(papers, node=authority.workload("buyer").id, delta=delta) as client:
        own = await client.everything()
    async with connect(papers, node=authority.workload("barista").id, delta=delta) as client:
        assert await client.everything() == own
    assert all(own.values())
    said = b"".join(resource for kind in own.values() for resource in kind)
    assert [stranger for stranger in STRANGERS if stranger in said] == []


async def test_everyone_has_a_key_of_their_own(connect: Connect, authority: Authority) -> None:
    keys = {}
    for name in ("buyer", "store", "barista", "till", "guest"):
        async with connect(authority.papers(name), node="the same") as client:
            (own,) = map(unpacked, await client.told(Type.SECRET, "certificate"))
        shown = x509.load_pem_x509_certificate(own.tls_certificate.certificate_chain.inline_bytes)
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [each.value for each in names] == [authority.uri(name)]
        keys[own.tls_certificate.private_key.inline_bytes] = name
    assert len(keys) == 5


@DIALECTS
async def test_what_others_have_is_not_there_when_asked_for_by_name(
    connect: Connect, authority: Authority, delta: bool
) -> None:
    async with connect(authority.papers("guest")) as client:
        theirs = {kind: await names(client, kind) for kind in Type}
    async with connect(authority.papers("buyer")) as client:
        own = {kind: await names(client, kind) for kind in Type}
    assert any(b"cafe" in name.encode() for kind in Type for name in theirs[kind] - own[kind])
    async with connect(authority.papers("buyer"), delta=delta) as client:
        for kind in Type:
            foreign = sorted(theirs[kind] - own[kind])
            mine = min(own[kind])
            # One of its own among them: in SotW nothing else would be answered.
            await client.ask(kind, *foreign, mine, "certificate/barista.cafe", STRANGER)
            answer = await client.answer(*foreign, mine, "certificate/barista.cafe", STRANGER)
            assert len(answer.resources) == 1
            if delta:
                assert [each.name for each in answer.resources] == [mine]
                assert {*foreign} <= {*answer.removed_resources}


async def names(client: Client, kind: Type) -> set[str]:
    await client.ask(kind, "*")
    return {resource.name for resource in (await client.answer()).resources}


async def test_a_proxy_that_is_back_before_its_dead_stream_is_noticed_is_one_proxy(
    mesh: Mesh, connect: Connect, authority: Authority
) -> None:
    papers, url = authority.papers("guest"), Settings.read(mesh.config, {}).catalog
    rows = "select proxy, workload, state from mesh_proxies where workload = 'guest'"

    async def synced() -> bool:
        told = [(authority.workload("guest").id, "guest", "synced")]
        return list((await asyncio.to_thread(query, url, rows)).rows) == told

    async def gone() -> bool:
        return not (await asyncio.to_thread(query, url, rows)).rows

    async with connect(papers) as first:
        told = await first.everything()
        async with connect(papers) as second:
            assert await second.everything() == told
            await until("one row", synced)
            first.call.cancel()
            await mesh.change(lambda: replace(mesh.hosts, HOSTS + MORE))
            await until("one row still", synced)
    await until("no row", gone)
    await mesh.change(lambda: replace(mesh.hosts, HOSTS))


# A stream lasts no longer than the right to it


@DIALECTS
async def test_the_stream_ends_with_its_certificate(
    connect: Connect, authority: Authority, delta: bool
) -> None:
    papers = authority.papers("buyer", ends=timedelta(seconds=2))  # they count whole seconds
    async with connect(papers, delta=delta) as client:
        assert await client.everything()
        code, why = await client.ending()
        assert (code, why) == (grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")


@pytest.mark.parametrize(
    ("host", "edited", "why"),
    [
        pytest.param(
            "leaver", lambda text: without(text, "leaver"), "no provider knows", id="taken away"
        ),
        pytest.param(
            "turncoat",
            lambda text: text.replace("loyal.shop", "disloyal.shop"),
            "turncoat is disloyal.shop now, not loyal.shop",
            id="given another identity",
        ),
    ],
)
async def test_the_stream_ends_with_its_row_in_the_catalog(
    connect: Connect, mesh: Mesh, authority: Authority, host: str, edited: Edited, why: str
) -> None:
    papers = authority.papers(host)
    async with connect(papers) as client, connect(authority.papers("buyer")) as another:
        assert await client.everything()
        assert await another.everything()
        began = time.monotonic()
        await mesh.change(lambda: replace(mesh.hosts, edited(HOSTS)))
        code, said = await client.ending()
        assert time.monotonic() - began < 1
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert why in said
        assert not another.call.done()
    async with connect(papers) as client:
        await client.ask(Type.SECRET, "*")
        assert (await client.ending())[0] == grpc.StatusCode.PERMISSION_DENIED
    await mesh.change(lambda: replace(mesh.hosts, HOSTS))
    async with connect(papers) as client:
        assert await client.everything()
