"""One stream, over a call that is as slow as a test wants."""

import asyncio

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from peers import Feed

from meshfed.xds.peer import Names, met
from meshfed.xds.resource import Type, World, resource
from meshfed.xds.server import BYE, DRAINING, Conversation
from meshfed.xds.stream import Stream
from meshfed.xds.turnstile import Turns

WORLD = World(1, {Type.CLUSTER: {"a": resource("a", Cluster(name="a"))}})


class Slow:
    """Takes a message when it is told to."""

    def __init__(self) -> None:
        self.begun, self.taken = asyncio.Event(), asyncio.Event()
        self.given_up = False

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def write(self, _: bytes) -> None:
        self.begun.set()
        try:
            await self.taken.wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise


def conversation(call: Slow, feed: Feed, told: list[str]) -> Conversation:
    peer = met(Names(), "node", "1.40.0", "here")
    stream = Stream(delta=True)
    return Conversation(call, feed, peer, stream, Turns(), lambda kind, *_: told.append(kind))


class Broken(Slow):
    """Its connection ends while a message is written, and grpc says so before anything else."""

    async def write(self, _: bytes) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')


async def test_who_is_killed_while_it_is_told_something_has_ended_its_stream_and_no_more() -> None:
    told: list[str] = []
    talk = conversation(Broken(), Feed(WORLD), told)
    assert await talk.run(DeltaDiscoveryRequest(type_url=Type.CLUSTER)) == BYE
    assert told == [], "what it did not take is not counted"


@pytest.mark.parametrize("more", [False, True], ids=["nothing more", "more to say"])
async def test_a_message_is_not_given_up_half_way_for_the_end(more: bool) -> None:
    """grpc would send its headers again with the status, and the stream would stay open."""
    call, feed = Slow(), Feed(WORLD)
    talk = conversation(call, feed, [])
    running = asyncio.create_task(talk.run(DeltaDiscoveryRequest(type_url=Type.CLUSTER)))
    await call.begun.wait()
    call.begun.clear()
    if more:
        feed.show(World(2, {Type.CLUSTER: {"b": resource("b", Cluster(name="b"))}}))
    talk.end(DRAINING)
    call.taken.set()
    assert await running == DRAINING
    assert not call.given_up
    assert not call.begun.is_set()  # nor was anything said after it
