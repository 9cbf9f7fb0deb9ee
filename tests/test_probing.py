"""Probes against real applications: HTTP, TCP and gRPC, well, ill and absent."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from applications import listening, read_request

from meshfed.federation.agent.probing import HERE, Probing
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.join.invite import Uninvitable, looked_at
from meshfed.providers.asking import SERVING, ask
from meshfed.providers.probe import Probe

NOT_SERVING = b"\x08\x02"
CHECK = "/grpc.health.v1.Health/Check"


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the status that is the path."""
    request = await read_request(reader)
    writer.write(f"HTTP/1.1 {request.path[1:]} so\r\ncontent-length: 0\r\n\r\n".encode())
    await writer.drain()


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    (port,) = free_ports(1)
    async with listening(status, "127.0.0.1", port):
        yield port


async def asked(probe: str) -> str:
    return await ask(Probe.parse(probe), HERE)


@pytest.mark.parametrize(("answer", "why"), [(204, ""), (302, ""), (503, "answered 503")])
async def test_http_is_well_from_200_to_399(port: int, answer: int, why: str) -> None:
    assert await asked(f"http:{port}/{answer}") == why


async def test_tcp_is_well_where_somebody_listens(port: int) -> None:
    assert await asked(f"tcp:{port}") == ""
    (free,) = free_ports(1)
    for kind in ("http", "tcp", "grpc"):
        assert await asked(f"{kind}:{free}") == "Connection refused"


async def test_who_never_answers_is_not_waited_for(port: int) -> None:
    (silent,) = free_ports(1)
    async with listening(mute, "127.0.0.1", silent):
        began = time.monotonic()
        answers = await asyncio.gather(asked(f"http:{silent}"), asked(f"grpc:{silent}"))
    assert answers == ["no answer within 2 s"] * 2
    assert time.monotonic() - began < 4


class Health(grpc.GenericRpcHandler):
    """Says of `bad` that it is not serving, and knows no `other`."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != CHECK:
            return None

        def check(asked: bytes, context: grpc.ServicerContext) -> bytes:
            if asked[2:] == b"other":
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return NOT_SERVING if asked[2:] == b"bad" else SERVING

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.mark.parametrize(
    ("path", "why"),
    [("", ""), ("/shop.Ledger", ""), ("/bad", "not SERVING"), ("/other", "not SERVING")],
)
async def test_grpc_is_well_while_it_says_that_it_serves(path: str, why: str) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=(Health(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert await asked(f"grpc:{port}{path}") == why
    finally:
        server.stop(None)


async def test_what_answers_with_something_else_is_not_well(port: int) -> None:
    assert await asked(f"grpc:{port}") != ""


async def test_an_application_that_ends_is_failing_after_three_looks(port: int) -> None:
    probing = Probing([f"http:{port}/200"])
    (free,) = free_ports(1)
    gone = Probing([f"tcp:{free}"])
    await probing.look()
    await gone.look()
    assert probing.failing == {}
    assert gone.failing == {free: f"tcp:{free}: Connection refused"}


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("http:8080/healthz", ""),
        ("udp:8080", "is no probe"),
        ("tcp:8080/path", "is no probe"),
        ("http:0", "is no probe"),
        ("http:99999", "is no probe"),
        ("http:8080/a b", "is no probe"),
        ("http:8081", "its applications' ports are 8080"),
    ],
)
def test_a_probe_is_read_when_the_token_is_made(probe: str, why: str) -> None:
    if not why:
        assert looked_at([probe], [8080]) == (probe,)
        return
    with pytest.raises(Uninvitable, match=why):
        looked_at([probe], [8080])


def test_a_port_has_one_probe() -> None:
    with pytest.raises(Uninvitable, match="another one looks at port 8080"):
        looked_at(["tcp:8080", "http:8080"], [8080])
