"""The xDS port of a `meshfed serve` that runs, attacked from loopback: whatever is thrown at it
leaves it serving."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from doors import Connect, attacked
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from live import Mesh
from strangers import Authority, connected, context, dialled

from meshfed.federation.demo.control import until
from meshfed.xds.resource import Type


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


async def healthy(mesh: Mesh, connect: Connect, authority: Authority) -> None:
    """It answers a proxy, at once, and says that it is well."""
    mesh.process.running()
    async with asyncio.timeout(2), connect(authority.papers("buyer")) as client:
        assert await client.everything()
    assert await mesh.control.get("/healthz") == (200, "ok\n")


def files(mesh: Mesh) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{mesh.process.popen.pid}/fd").iterdir()))


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        pytest.param(None, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", id="HTTP without TLS"),
        pytest.param(None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 without TLS"),
        pytest.param(None, b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, id="a record of zeros"),
        pytest.param(None, b"\x16\x03\x01\x02\x00\x01\x00", id="half a greeting of TLS"),
        pytest.param("buyer", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", id="HTTP/1 inside TLS"),
        pytest.param("buyer", b"\xff" * 300_000, id="noise inside TLS"),
        pytest.param(
            "buyer",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\xff\xff\x01\x25\0\0\0\x01" * 9_000,
            id="HTTP/2 frames of nonsense",
        ),
    ],
)
async def test_noise_ends_alone(
    mesh: Mesh, connect: Connect, authority: Authority, shown: str, said: bytes
) -> None:
    tls = context(authority.papers(shown)) if shown else None
    before = files(mesh)
    async with AsyncExitStack() as open_ones:
        for _ in range(10):
            with suppress(ConnectionError, ssl.SSLError):
                _, writer = await open_ones.enter_async_context(dialled(mesh, tls))
                writer.write(said)
                await writer.drain()
        await healthy(mesh, connect, authority)
    await until("sockets to close", closed(mesh, before))


def closed(mesh: Mesh, before: int) -> Callable[[], Awaitable[bool]]:
    async def true() -> bool:
        return files(mesh) <= before + 2  # a health check's own

    return true


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(
            DeltaDiscoveryRequest(
                type_url=Type.CLUSTER, resource_names_subscribe=[9_000_000 * "x"]
            ),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            id="9 MB",
        ),
        pytest.param(
            DeltaDiscoveryRequest(resource_names_subscribe=["*"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            id="no type",
        ),
        pytest.param(
            DeltaDiscoveryRequest(type_url=Type.CLUSTER, node={"id": ""}),
            grpc.StatusCode.INVALID_ARGUMENT,
            id="a node without a name",
        ),
    ],
)
async def test_a_request_out_of_all_bounds_ends_its_stream_alone(
    mesh: Mesh,
    connect: Connect,
    authority: Authority,
    said: DeltaDiscoveryRequest,
    code: object,
) -> None:
    papers = authority.papers("buyer")
    async with connect(papers) as client, connect(papers) as another:
        assert await another.everything()
        if not said.HasField("node"):
            said.node.id = "buyer"
        await client.call.write(said)
        assert (await client.ending())[0] == code
        assert not another.call.done()
    await healthy(mesh, connect, authority)


async def test_two_hundred_idle_connections_keep_nobody_out(
    mesh: Mesh, connect: Connect, authority: Authority
) -> None:
    tls = context(authority.papers("buyer"))
    before = files(mesh)
    async with AsyncExitStack() as idle:
        for number in range(200):
            await idle.enter_async_context(dialled(mesh, tls if number % 2 else None))
        await healthy(mesh, connect, authority)
    await until("sockets to close", closed(mesh, before))
