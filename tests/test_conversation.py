"""One stream, over a call that is as slow as a test wants."""

import asyncio

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from peers import Feed

from meshfed.xds.peer import Names, met
from meshfed.xds.resource import Type, World, resource
from meshfed.xds.server import DRAINING, Conversation
from meshfed.xds.stream import Stream

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


@pytest.mark.parametrize("more", [False, True], ids=["nothing more", "more to say"])
async def test_a_message_is_not_given_up_half_way_for_the_end(more: bool) -> None:
    """grpc would send its headers again with the status, and the stream would stay open."""
    call, feed = Slow(), Feed(WORLD)
    peer = met(Names(), "node", "1.40.0", "here")
    talk = Conversation(call, feed, peer, Stream(delta=True), lambda *_: None)
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
