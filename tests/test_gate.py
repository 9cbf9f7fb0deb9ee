"""Who is let in at a port, with real sockets and real TLS: counted before hands are shaken."""

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from itertools import count

import pytest
from attesting import LEAF_KEY, certificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meshfed.federation.admin.app import bound
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.demo.control import until
from meshfed.federation.gate import EVERY, Gate, Limits, Tally, full

FEW = Limits(most=5, arriving=4, each=2, patience=0.3)
HERE, THERE, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
HELLO = b"hello"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    leaf = certificate("here", LEAF_KEY, "here", LEAF_KEY, ["here.example"])
    key = LEAF_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path_factory.mktemp("gate") / "both.pem"
    file.write_bytes(leaf.public_bytes(Encoding.PEM) + key)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(file)
    return made


class Door:
    """A port, and who is there."""

    def __init__(self) -> None:
        self.port = 0
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.there: set[asyncio.Transport] = set()

    def greeting(self) -> asyncio.Protocol:
        there = self.there

        class Greets(asyncio.Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:
                self.transport = transport
                there.add(transport)
                transport.write(HELLO)

            def connection_lost(self, _: Exception | None) -> None:
                there.discard(self.transport)

        return Greets()

    def gate(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        limits: Limits,
        clock: Callable[[], float] = lambda: 0.0,
        refused: Callable[[str], None] | None = None,
    ) -> Gate:
        return Gate(
            "join.listen",
            listener,
            self.greeting,
            tls,
            limits=limits,
            connected=lambda: len(self.there),
            refused=refused or self.metrics.turned_away,
            clock=clock,
        )

    @property
    def refused(self) -> float | None:
        """As `/metrics` has it."""
        counted = "meshfed_connections_refused_total"
        return self.registry.get_sample_value(counted, {"door": "join.listen"})

    async def left(self) -> bool:
        """Whether nobody is there."""
        return not self.there

    def silent(self, source: str = HERE) -> socket.socket:
        """A connection that says nothing."""
        return socket.create_connection((HERE, self.port), 5, (source, 0))

    def greeted(self, source: str = HERE) -> ssl.SSLSocket:
        """One that shakes hands, and waits to be greeted."""
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        made = trusting.wrap_socket(self.silent(source))
        assert made.recv(5) == HELLO
        return made


@asynccontextmanager
async def gated(
    tls: ssl.SSLContext | None, limits: Limits = FEW, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[Door]:
    door = Door()
    with closing(bound("127.0.0.1:0")) as listener:
        door.port = listener.getsockname()[1]
        running = asyncio.create_task(door.gate(listener, tls, limits, clock).run())
        yield door
        await until("the last to go", door.left)
        running.cancel()
        await asyncio.wait([running])


async def closed(line: socket.socket) -> bool:
    """Whether it is closed, or else greeted."""
    try:
        return await asyncio.to_thread(line.recv, 5) == b""
    except ConnectionResetError:
        return True
    finally:
        line.close()


async def test_who_shakes_no_hands_is_counted_by_its_address_and_goes_after_a_while(
    tls: ssl.SSLContext,
) -> None:
    with capture_logs() as logs:
        async with gated(tls) as door:
            waiting = [door.silent(each) for each in (HERE, HERE, THERE)]
            assert await closed(door.silent(HERE))
            (await asyncio.to_thread(door.greeted, ELSEWHERE)).close()
            waiting.append(door.silent(THERE))
            assert await closed(door.silent(ELSEWHERE))
            assert [await closed(each) for each in waiting] == [True] * 4
            (await asyncio.to_thread(door.greeted, HERE)).close()
    (said,) = logs
    assert said["event"] == "connections refused"
    assert (said["door"], said["refused"], said["last"]) == ("join.listen", 1, HERE)
    assert said["reason"] == "2 of its address have not shaken hands yet"
    assert door.refused == 2


async def test_who_is_there_takes_room_until_it_goes() -> None:
    async with gated(None) as door:
        there = [door.silent() for _ in range(FEW.most)]
        assert [await asyncio.to_thread(each.recv, 5) for each in there] == [HELLO] * FEW.most
        assert await closed(door.silent(THERE))
        there.pop().close()

        async def left() -> bool:
            return len(door.there) < FEW.most

        await until("one that goes", left)
        assert not await closed(door.silent(THERE))
        for each in there:
            each.close()


async def test_those_who_are_refused_are_told_of_once_a_minute_with_their_number() -> None:
    now = [0.0]
    with capture_logs() as logs:
        async with gated(None, Limits(0), lambda: now[0]) as door:
            for moment in (0.0, 1.0, 2.0, EVERY, EVERY + 1):
                now[0] = moment
                assert await closed(door.silent())
    assert [each["refused"] for each in logs] == [1, 3]


async def test_the_number_of_a_flood_is_told_a_minute_after_it_though_nobody_comes_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = 0.02
    monkeypatch.setattr("meshfed.federation.gate.EVERY", every)
    now, looks = [0.0], count()

    def clock() -> float:
        next(looks)
        return now[0]

    async def looked() -> bool:
        return next(looks) > 20

    async def told() -> bool:
        return sum(each["refused"] for each in logs) == 4

    with capture_logs() as logs:
        async with gated(None, Limits(0), clock) as door:
            for _ in range(4):
                assert await closed(door.silent())
            await until("many a look, while no time passes", looked)
            assert [each["refused"] for each in logs] == [1]
            now[0] = every
            await until("a line with the others", told)
    assert [each["refused"] for each in logs] == [1, 3]


async def test_who_comes_while_no_descriptor_is_left_waits_and_one_line_says_so() -> None:
    with capture_logs() as logs:
        async with gated(None) as door:
            line = socket.socket()
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
            try:
                line.connect((HERE, door.port))

                async def said() -> bool:
                    return bool(logs)

                await until("a line of the log", said)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert not await closed(line)
    assert logs == [
        {
            "event": "connections wait",
            "log_level": "warning",
            "door": "join.listen",
            "reason": "Too many open files",
        }
    ]
    assert door.refused is None


async def test_where_the_port_was_closed_the_gate_ends() -> None:
    door, listener = Door(), bound("127.0.0.1:0")
    door.port = listener.getsockname()[1]
    gate = door.gate(listener, None, Limits(0), refused=lambda _: listener.close())
    with closing(door.silent()), pytest.raises(ExceptionGroup) as ended:
        async with asyncio.timeout(5):
            await gate.run()
    assert ended.group_contains(OSError, match="Bad file descriptor")


@pytest.mark.parametrize(
    ("arriving", "connected", "why"),
    [
        pytest.param({"a": 1}, 3, "", id="there is room"),
        pytest.param({"a": 1}, 4, "5 are connected", id="those who arrive are counted, too"),
        pytest.param({"a": 2}, 0, "2 of its address have not shaken hands yet", id="of one"),
        pytest.param({"b": 2, "c": 2}, 0, "4 have not shaken hands yet", id="of all"),
    ],
)
def test_there_is_room_for_so_many(arriving: dict[str, int], connected: int, why: str) -> None:
    tally = Tally()
    for who, n in arriving.items():
        tally.add(who, n)
    assert full(tally, connected, "a", FEW) == why


def test_nobody_is_remembered_who_has_arrived() -> None:
    tally = Tally()
    tally.add("a")
    tally.add("a", -1)
    assert tally == Tally()
