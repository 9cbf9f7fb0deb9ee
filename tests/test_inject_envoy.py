"""A pod's sidecar as a real Envoy: its token, its state, and what it says of its application."""

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
from aiohttp import web
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)

from meshfed.demo.kube.papers import Authority, Paper
from meshfed.federation.inject.containers import FOLDER, HOLD
from meshfed.federation.inject.decide import PROXY
from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.patch import applied, patched

ENVOY = Path(sys.executable).with_name("envoy")
HERE = "127.0.72.1"  # the pod's address, and its loopback
SOON = 10.0  # seconds
BACK = 8.0  # seconds: gRPC asks again every 5 s, more or less a fifth of it
ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
HEALTH = "grpc.health.v1.Health"
# HealthCheckResponse, whose only field is 1: https://github.com/grpc/grpc-proto health.proto
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "shop"},
    "spec": {
        "serviceAccountName": "web",
        "containers": [
            {
                "name": "web",
                "image": "web:1",
                "ports": [{"name": "http", "containerPort": 18080}],
                "readinessProbe": {"httpGet": {"path": "/ready?full=1", "port": "http"}},
                "livenessProbe": {"httpGet": {"path": "live", "port": 18443, "scheme": "HTTPS"}},
            },
            {
                "name": "cache",
                "image": "cache:1",
                "readinessProbe": {"tcpSocket": {"port": 16379}},
                "livenessProbe": {"grpc": {"port": 19090, "service": "shop.$(POD_IP)"}},
            },
        ],
    },
}


@dataclass
class Door:
    """Where sidecars come with their tokens: it says nothing until it is let, then `no clusters`.

    A control plane with such a door does not exist yet; this one has no mesh behind it.
    """

    known: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    nodes: list[tuple[str, str]] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def streamed(
        self,
        requests: AsyncIterator[DeltaDiscoveryRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[DeltaDiscoveryResponse]:
        told = dict(context.invocation_metadata())
        self.tokens.put_nowait(told.get("authorization", ""))
        end = asyncio.create_task(self.ending.wait())
        asking = aiter(requests)
        while True:
            request = asyncio.ensure_future(anext(asking))
            await asyncio.wait({request, end}, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                request.cancel()
                return
            asked = request.result()
            if asked.node.id:
                self.nodes.append((asked.node.id, asked.node.cluster))
            if not asked.response_nonce:
                await self.known.wait()
                yield DeltaDiscoveryResponse(
                    type_url=asked.type_url, nonce="1", system_version_info="1"
                )


@asynccontextmanager
async def opened(door: Door, paper: Paper, at: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server()
    stream = grpc.stream_stream_rpc_method_handler(
        door.streamed,
        request_deserializer=DeltaDiscoveryRequest.FromString,
        response_serializer=DeltaDiscoveryResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(ADS, {"DeltaAggregatedResources": stream})
    server.add_generic_rpc_handlers((handler,))
    shown = grpc.ssl_server_credentials([(paper.key.read_bytes(), paper.certificate.read_bytes())])
    port = server.add_secure_port(f"localhost:{at}", shown)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@dataclass
class Application:
    """What the pod runs, with a switch."""

    well: bool = True
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.scheme} {request.path_qs}")
        return web.Response(status=200 if self.well else 503)

    async def check(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.asked.append(f"grpc {request[2:].decode()}")
        return SERVING if self.well else NOT_SERVING


@asynccontextmanager
async def running(application: Application, paper: Paper) -> AsyncIterator[None]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(paper.certificate, paper.key)
    served = web.Application()
    served.router.add_get("/{path:.*}", application.answer)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, HERE, 18080).start()
    await web.TCPSite(runner, HERE, 18443, ssl_context=tls).start()
    checks = grpc.aio.server()
    check = grpc.unary_unary_rpc_method_handler(application.check)
    checks.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(HEALTH, {"Check": check}),)
    )
    checks.add_insecure_port(f"{HERE}:19090")
    await checks.start()
    cache = await asyncio.start_server(lambda _, writer: writer.close(), HERE, 16379)
    try:
        yield
    finally:
        cache.close()
        await cache.wait_closed()
        await checks.stop(0)
        await runner.cleanup()


def expanded(text: str, environment: dict[str, str]) -> str:
    """As kubelet does with a container's arguments: `$$` is a dollar."""

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", one, text)


@dataclass
class Pod:
    """A pod whose sidecar runs, as kubelet sees it."""

    spec: dict[str, object]
    client: httpx.AsyncClient

    async def answers(self, handler: dict[str, object]) -> int:
        """A probe's status; 0 where nobody answers."""
        asked = handler["httpGet"]
        url = f"http://{HERE}:{asked['port']}{asked['path']}"
        try:
            return (await self.client.get(url)).status_code
        except httpx.HTTPError:
            return 0

    def probe(self, container: str, field: str) -> dict[str, object]:
        every = [*self.spec["initContainers"], *self.spec["containers"]]
        [found] = [each for each in every if each["name"] == container]
        return found[field]


@asynccontextmanager
async def started(door: Door, authority: Authority, folder: Path) -> AsyncIterator[Pod]:
    async with (
        opened(door, authority.serves()) as port,
        beside(port, authority, folder) as pod,
    ):
        yield pod


@asynccontextmanager
async def beside(port: int, authority: Authority, folder: Path) -> AsyncIterator[Pod]:
    """The sidecar of POD with its arguments as they are, but for where this machine differs.

    `port`: of its control plane on this machine, which may be away.
    """
    (folder / "token").write_text("first")
    injection = Injection(control_plane=f"localhost:{port}")
    changes = patched(POD, None, injection, authority.file.read_text()).changes
    spec = applied(POD, changes)["spec"]
    [sidecar] = [each for each in spec["initContainers"] if each["name"] == PROXY]
    environment = {
        "POD_NAME": "web-1",
        "POD_NAMESPACE": "shop",
        "POD_ACCOUNT": "web",
        "POD_IP": HERE,
    }
    assert environment.keys() == {each["name"] for each in sidecar["env"]}
    arguments = [
        expanded(each, environment).replace("127.0.0.1", HERE).replace(FOLDER, str(folder))
        for each in sidecar["args"]
    ]
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            ENVOY,
            *arguments,
            *("--concurrency", "1"),
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=1) as client:
            yield Pod(spec, client)
    finally:
        process.kill()
        await process.wait()


async def until(asked: Callable[[], Awaitable[bool]]) -> None:
    """Another process has no event to wait for."""
    for _ in range(200):
        if await asked():
            return
        await asyncio.sleep(SOON / 200)
    raise AssertionError("the sidecar says something else: see its log")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path)


async def test_a_sidecar_shows_its_token_and_is_ready_when_it_knows_the_mesh(authority, tmp_path):
    door = Door()
    async with started(door, authority, tmp_path) as pod:
        async with asyncio.timeout(SOON):
            assert await door.tokens.get() == "Bearer first"
        assert door.nodes in ([], [("web-1.shop", "web.shop")])
        wait = await asyncio.create_subprocess_exec(
            "/bin/bash", "-c", HOLD.replace("127.0.0.1", HERE)
        )
        ready, alive = (pod.probe(PROXY, each) for each in ("readinessProbe", "livenessProbe"))
        assert await pod.answers(ready) == 0
        assert wait.returncode is None
        door.known.set()
        async with asyncio.timeout(SOON):
            assert await wait.wait() == 0
        assert await pod.answers(ready) == 200
        assert await pod.answers(alive) == 200
        assert door.nodes[0] == ("web-1.shop", "web.shop")

        (tmp_path / "token").write_text("second")
        door.ending.set()
        async with asyncio.timeout(SOON):
            assert await door.tokens.get() == "Bearer second"
        assert await pod.answers(ready) == 200


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(2.0, id="for a moment"),
        # Envoy's own patience grows to 30 s, and would have by then.
        pytest.param(60.0, id="for a minute", marks=pytest.mark.soak),
    ],
)
async def test_a_sidecar_is_back_seconds_after_its_control_plane(away, authority, tmp_path):
    before, after, paper = Door(), Door(), authority.serves()
    async with AsyncExitStack() as first:
        port = await first.enter_async_context(opened(before, paper))
        async with beside(port, authority, tmp_path), asyncio.timeout(away + 2 * SOON):
            await before.tokens.get()
            await first.aclose()
            await asyncio.sleep(away)
            async with opened(after, paper, port), asyncio.timeout(BACK):
                assert await after.tokens.get() == "Bearer first"
                # One stream waited all that time: of others Envoy would have said that they ended.
                said = (tmp_path / "envoy.log").read_text()
                assert "DeltaAggregatedResources" not in said


async def test_probes_through_the_sidecar_say_what_the_application_says(authority, tmp_path):
    door, application = Door(), Application()
    door.known.set()
    async with started(door, authority, tmp_path) as pod:
        every = [
            pod.probe(*each)
            for each in (
                ("web", "readinessProbe"),
                ("web", "livenessProbe"),
                ("cache", "readinessProbe"),
                ("cache", "livenessProbe"),
            )
        ]

        async def said() -> list[int]:
            return [await pod.answers(each) for each in every]

        await until(lambda: _is(said, [503, 503, 503, 503]))
        async with running(application, authority.serves()):
            await until(lambda: _is(said, [200, 200, 200, 200]))
            assert {"http /ready?full=1", "https /live", "grpc shop.$(POD_IP)"} <= set(
                application.asked
            )
            application.well = False
            await until(lambda: _is(said, [503, 503, 200, 503]))
        await until(lambda: _is(said, [503, 503, 503, 503]))


async def _is(said: Callable[[], Awaitable[list[int]]], wanted: list[int]) -> bool:
    return await said() == wanted


def test_a_classic_sidecar_waits_by_the_same_words() -> None:
    changes = patched(POD, None, Injection(sidecar=Sidecar.CLASSIC), "").changes
    first = applied(POD, changes)["spec"]["containers"][0]
    assert first["name"] == PROXY
    assert first["lifecycle"]["postStart"]["exec"]["command"] == ["/bin/bash", "-c", HOLD]
