"""The connections of machines at a real `serve`: kept, given way, and refused."""

import asyncio
import http.client
import inspect
import json
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Response
from joining import Ground, grounded, in_a_loop

from meshfed.federation.join.dial import connected
from meshfed.federation.join.line import Line
from meshfed.federation.join.machine import join
from meshfed.federation.join.methods import Caller
from meshfed.federation.join.papers import Papers, Unjoinable
from meshfed.federation.join.request import Refused
from meshfed.federation.join.server import Guard, again
from meshfed.federation.join.tls import CALLER, EACH, FROM_ONE, ROOM, STRANGERS, Room, slim
from meshfed.xds.peer import Peer

REFUSALS = 5


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with grounded(
        tmp_path_factory.mktemp("join"), "hosts: []", "127.0.81", refusals=REFUSALS
    ) as ground:
        yield ground


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each that a machine has made."""
    made: list[object] = []

    def counted(*given: Any) -> http.client.HTTPSConnection:
        made.append(given)
        return connected(*given)

    monkeypatch.setattr("meshfed.federation.join.line.connected", counted)
    return made


def test_however_often_an_agent_comes_it_shakes_hands_once_for_each_of_its_papers(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("steady"), Line()
    for _ in range(10):
        assert line.lease(papers, {}) == 30
    assert len(handshakes) == 1
    join(papers.server, papers.folder, {}, papers)
    renewed = Papers.read(papers.folder)
    assert renewed is not None
    for _ in range(3):
        line.lease(renewed, {})
    assert len(handshakes) == 2
    line.close()


def test_a_connection_that_ended_meanwhile_is_made_again_and_nobody_hears_of_it(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("interrupted"), Line()
    line.lease(papers, {})
    assert line._open is not None
    line._open.sock.shutdown(socket.SHUT_RDWR)
    line.lease(papers, {})
    assert len(handshakes) == 2
    line.close()


def test_what_is_refused_is_said_and_asked_no_second_time(
    ground: Ground, handshakes: list[object]
) -> None:
    papers, line = ground.joined("refused"), Line()
    line.lease(papers, {})
    with pytest.raises(Unjoinable, match="health: Extra inputs are not permitted"):
        line.lease(papers, {"health": "well"})
    assert len(handshakes) == 1
    line.lease(papers, {})
    assert len(handshakes) == 1
    line.close()


def test_one_certificate_has_a_few_connections_and_the_oldest_gives_way(ground: Ground) -> None:
    papers = ground.joined("many")
    lines = [Line() for _ in range(EACH + 1)]
    for line in lines:
        line.lease(papers, {})
    oldest, *others = [line._open.sock for line in lines if line._open]
    assert oldest.recv(1) == b""
    for sock in others:
        sock.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            sock.recv(1)
    for line in lines:
        line.close()


async def test_a_certificate_that_ends_while_its_connection_stands_counts_no_more() -> None:
    refused: list[tuple[int, str]] = []

    class Desk:
        async def refuse(self, why: Refused, _: Caller) -> Response:
            refused.append((why.status, why.why))
            return Response(status_code=why.status)

    async def app(*_: object) -> None:
        refused.append((200, ""))

    async def asked(ends: float) -> None:
        caller = Caller("192.0.2.1", Peer((), (), ends, "", "", ""), "a1")
        scope = {"type": "http", "method": "POST", CALLER: caller}
        await Guard(app, Desk())(scope, again(b"{}"), noted)

    async def noted(_: object) -> None:
        pass

    await asked(time.time() + 60)
    await asked(time.time() - 1)
    why = "certificate: it has ended since this connection began"
    assert refused == [(200, ""), (401, why)]


async def test_a_connection_that_is_kept_is_read_a_little_at_a_time_and_no_less(
    ground: Ground,
) -> None:
    """What asyncio calls it is its own affair: 5,000 connections would be 1.3 GB without."""
    speaks = SimpleNamespace(max_size=1 << 18, _ssl_buffer=b"", _ssl_buffer_view=b"")
    slim(SimpleNamespace(_ssl_protocol=speaks))
    assert (speaks.max_size, len(speaks._ssl_buffer_view)) == (ROOM, ROOM)
    written = inspect.getsource(SSLProtocol)
    assert "self._ssl_buffer_view = memoryview(self._ssl_buffer)" in written
    assert "want > self.max_size" in written
    papers, line = await asyncio.to_thread(ground.joined, "wordy"), Line()
    failing = {"untrusted_failing": dict.fromkeys(range(1, 60), "x" * 200)}
    await asyncio.to_thread(line.lease, papers, failing)
    line.close()


def test_who_shakes_no_hands_has_few_descriptors_of_the_control_plane(ground: Ground) -> None:
    serve = ground.mesh.process
    files = Path(f"/proc/{serve.popen.pid}/fd")
    before, there = len([*files.iterdir()]), ("127.0.0.1", ground.port)
    with ExitStack() as silent:
        for _ in range(2 * FROM_ONE):
            opened = socket.create_connection(there, 5, ("127.0.47.254", 0))
            silent.enter_context(closing(opened))
        ground.joined("neighbour")
        assert len([*files.iterdir()]) - before < FROM_ONE + 20
        _, measured = in_a_loop(ground.mesh.control.get("/metrics"))
    said = [json.loads(line) for line in serve.log.read_text().splitlines()]
    (refused,) = [each for each in said if each["event"] == "connections refused"]
    assert (refused["door"], refused["last"]) == ("join.listen", "127.0.47.254")
    assert f'meshfed_connections_refused_total{{door="join.listen"}} {FROM_ONE:.1f}' in measured


def test_strangers_leave_room_for_those_who_joined() -> None:
    room = Room(STRANGERS + 20)
    strangers = [SimpleNamespace(shown=b"", source=str(n)) for n in range(STRANGERS + 1)]
    assert [room.enter(each) for each in strangers] == [True] * STRANGERS + [False]
    room.leave(strangers[-1], was_there=False)
    members = [SimpleNamespace(shown=b"%d" % n) for n in range(21)]
    assert [room.enter(each) for each in members] == [True] * 20 + [False]
    for each in strangers[:-1]:
        room.leave(each, was_there=True)
    room = Room(10 * STRANGERS)
    of_one = [SimpleNamespace(shown=b"", source="one") for _ in range(2 * STRANGERS)]
    assert sum(room.enter(each) for each in of_one) == FROM_ONE
    another = SimpleNamespace(shown=b"", source="another")
    assert room.enter(another), "who is refused takes no room of others"
