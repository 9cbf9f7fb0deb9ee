"""One stream, over a call that is as slow as a test wants."""

import asyncio
from sys import getrefcount
from time import monotonic

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from peers import Feed

from meshfed.xds.conversation import BYE, DRAINING, UNREAD, Conversation, Ending, Inbox
from meshfed.xds.peer import Names, met
from meshfed.xds.resource import Type, World, resource
from meshfed.xds.stream import Response, Stream
from meshfed.xds.subscription import GATE
from meshfed.xds.turnstile import Turns

WORLD = World(
    1,
    {
        Type.CLUSTER: {"a": resource("a", Cluster(name="a"))},
        Type.ENDPOINTS: {"a": resource("a", ClusterLoadAssignment(cluster_name="a"))},
    },
)
LATER = World(2, {Type.CLUSTER: {"b": resource("b", Cluster(name="b"))}})
INQUIRY = DeltaDiscoveryRequest(
    type_url=Type.ENDPOINTS, resource_names_subscribe=["a"]
).SerializeToString()
ANSWER = DeltaDiscoveryRequest(type_url=Type.CLUSTER, response_nonce="1").SerializeToString()

EXPIRED = Ending(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")


class Slow:
    """Takes a message when it is told to."""

    def __init__(self) -> None:
        self.message = b""
        self.begun, self.taken, self.written = (asyncio.Event() for _ in range(3))
        self.given_up = False

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def write(self, message: bytes) -> None:
        self.message = message
        self.begun.set()
        try:
            await self.taken.wait()
            self.written.set()
        except asyncio.CancelledError:
            self.given_up = True
            raise


def conversation(
    call: Slow,
    feed: Feed,
    told: list[str],
    not_after: float | None = None,
    inbox: Inbox | None = None,
) -> Conversation:
    peer = met(Names(not_after=not_after), "node", "1.40.0", "here")
    stream = Stream(delta=True)

    def sent(kind: str, *_: object) -> None:
        told.append(kind)

    talk = Conversation(call, feed, peer, stream, inbox or Inbox(), Turns(), sent)
    talk.begin(DeltaDiscoveryRequest(type_url=Type.CLUSTER))
    return talk


async def begun(call: Slow, talk: Conversation) -> asyncio.Task[Ending]:
    """Its client takes what it is told, and was told everything."""
    call.taken.set()
    task = asyncio.create_task(talk.run())
    await call.written.wait()
    return task


class Broken(Slow):
    """Its connection ends while a message is written, and grpc says so before anything else."""

    async def write(self, _: bytes) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')


async def test_who_is_killed_while_it_is_told_something_has_ended_its_stream_and_no_more() -> None:
    told: list[str] = []
    talk = conversation(Broken(), Feed(WORLD), told)
    assert await talk.run() == BYE
    assert told == [], "what it did not take is not counted"


@pytest.mark.parametrize("more", [False, True], ids=["nothing more", "more to say"])
async def test_a_message_is_not_given_up_half_way_for_the_end(more: bool) -> None:
    """grpc would send its headers again with the status, and the stream would stay open."""
    call, feed = Slow(), Feed(WORLD)
    talk = conversation(call, feed, [])
    running = asyncio.create_task(talk.run())
    await call.begun.wait()
    call.begun.clear()
    if more:
        feed.show(LATER)
    talk.end(DRAINING)
    call.taken.set()
    assert await running == DRAINING
    assert not call.given_up
    assert not call.begun.is_set()  # nor was anything said after it


async def test_nor_is_it_for_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Slow()
    talk = conversation(call, Feed(WORLD), [])
    running = asyncio.create_task(talk.run())
    await call.begun.wait()
    monkeypatch.setattr(Stream, "receive", lambda *_: 1 / 0)
    talk.hear(INQUIRY)
    await asyncio.sleep(0.01)
    call.taken.set()
    with pytest.raises(ZeroDivisionError):
        await running
    assert not call.given_up


async def test_what_was_to_be_said_when_the_end_came_is_not_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshfed.xds.conversation.CALM", -1.0)
    call, feed = Slow(), Feed(WORLD)
    told: list[str] = []
    talk = conversation(call, feed, told)
    running = await begun(call, talk)
    talk.hear(ANSWER)
    feed.show(LATER)
    talk.end(DRAINING)
    assert await running == DRAINING
    assert told == ["CDS"]


async def test_what_was_written_is_not_kept() -> None:
    """A stream writes 400 kB when it begins, and then nothing for hours."""
    call, feed = Slow(), Feed(WORLD)
    talk = conversation(call, feed, [])
    running = asyncio.create_task(talk.run())
    call.taken.set()
    await call.written.wait()
    await asyncio.sleep(0)  # it waits for something to say
    holders = getrefcount(call.message)
    assert holders == 2, "this test's call, and the question itself"
    talk.end(DRAINING)
    await running


async def test_a_mistake_of_ours_ends_the_stream_and_reaches_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, feed = Slow(), Feed(WORLD)
    talk = conversation(call, feed, [])
    running = await begun(call, talk)

    def mistaken(*_: object) -> list[Response]:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Stream, "outgoing", mistaken)
    talk.hear(INQUIRY)
    with pytest.raises(ZeroDivisionError):
        await running


async def test_a_message_that_is_a_mistake_to_hear_ends_its_stream_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox, heard = Inbox(), asyncio.Event()
    first, second = (conversation(Slow(), Feed(WORLD), [], inbox=inbox) for _ in range(2))
    hear = Conversation.hear

    def mistaken(talk: Conversation, message: bytes) -> None:
        hear(talk, message)
        if talk is second:
            heard.set()

    monkeypatch.setattr(Conversation, "hear", mistaken)
    monkeypatch.setattr(Stream, "receive", lambda *_: 1 / 0)
    inbox.put(first, b"")
    inbox.put(second, b"")
    await heard.wait()
    for each in (first, second):
        with pytest.raises(ZeroDivisionError):
            await each.run()


async def test_what_moves_while_a_message_is_written_is_said_after_it() -> None:
    call, feed = Slow(), Feed(WORLD)
    told: list[str] = []
    talk = conversation(call, feed, told)
    running = asyncio.create_task(talk.run())
    await call.begun.wait()
    call.begun.clear()
    talk.hear(INQUIRY)
    call.taken.set()
    await call.begun.wait()
    await call.written.wait()
    talk.end(DRAINING)
    await running
    assert told == ["CDS", "EDS"]


@pytest.mark.parametrize("moved", ["before the answer", "after it"])
async def test_the_answer_to_what_moved_and_what_moves_next_are_some_time_apart(
    monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """Whoever is late to answer sees two messages no closer for that."""
    monkeypatch.setattr("meshfed.xds.conversation.APART", 0.1)
    call, feed = Slow(), Feed(WORLD)
    talk = conversation(call, feed, [])
    running = await begun(call, talk)
    call.written.clear()
    if moved == "before the answer":
        feed.show(LATER)
    talk.hear(ANSWER)
    answered = monotonic()
    feed.show(LATER)
    await call.written.wait()
    assert monotonic() - answered >= 0.09
    talk.end(DRAINING)
    await running


def looked(talk: Conversation, now: float, wall: float = 0.0) -> float:
    """When it is due again."""
    talk.look(now, wall)
    return talk.again


async def test_a_stream_is_looked_at_again_when_something_is_due() -> None:
    call = Slow()
    talk = conversation(call, Feed(WORLD), [], not_after=1000.0)
    now = monotonic()
    assert looked(talk, now, wall=900.0) == now + UNREAD, "nothing that begins is due before"
    assert looked(talk, now, wall=990.0) == pytest.approx(now + 10), "its certificate ends"
    running = asyncio.create_task(talk.run())
    await call.begun.wait()
    assert now + UNREAD <= looked(talk, now + 5) <= now + UNREAD + 1, "a message is not taken"
    call.taken.set()
    await call.written.wait()
    assert looked(talk, now + 5) >= now + GATE, "nor answered"
    talk.look(now, wall=1000.0)
    assert await running == EXPIRED


async def test_what_waits_for_an_answer_that_does_not_come_is_said_in_time() -> None:
    """Though the stream was looked at in between, when there was nothing to say."""
    call, feed = Slow(), Feed(WORLD)
    told: list[str] = []
    talk = conversation(call, feed, told)
    running = await begun(call, talk)
    call.written.clear()
    talk.hear(ANSWER)
    talk.hear(INQUIRY)
    await call.written.wait()
    sent = monotonic()
    talk.look(sent + UNREAD, 0.0)
    moved = {"a": resource("a", ClusterLoadAssignment(cluster_name="a", endpoints=[{}]))}
    feed.show(World(2, {**WORLD.resources, Type.ENDPOINTS: moved}))
    await asyncio.sleep(0.05)  # its turn would have come
    assert told == ["CDS", "EDS"]
    assert talk.again <= sent + GATE
    talk.end(DRAINING)
    await running
