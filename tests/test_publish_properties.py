"""A publisher that lived through random changes tells everyone what one started anew does."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import publishing
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry
from publishing import BUYING, DOMAIN, KNOWN, SELLING, Published, peer

from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Interception,
    Known,
    Locality,
    ObjectName,
    Port,
    Protocol,
    Rule,
    Service,
    ServiceName,
    Specified,
    TcpRoute,
    TrafficTarget,
    Workload,
)
from meshfed.catalog.preferences import NO_PREFERENCES, Preference, Preferences
from meshfed.catalog.reach import ANYWHERE
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.subscriber import Subscriber
from meshfed.xds.feed import Refusal
from meshfed.xds.secrets import OWN

SEEDS = range(6)
WHO = [Identity(f"who-{n}", "shop") for n in range(4)]
SERVICES = [ServiceName(f"service-{n}", "shop") for n in range(4)]
HOSTS = 6


@dataclass
class Scene:
    """One list of hosts, of which a little changes each time."""

    chance: Random
    services: dict[ServiceName, Service] = field(default_factory=dict)
    hosts: dict[int, Workload] = field(default_factory=dict)
    serves: dict[tuple[ServiceName, int], int] = field(default_factory=dict)  # on which port

    def change(self) -> Known:
        chance = self.chance
        match chance.choice(["service", "host", "endpoint"]):
            case "service":
                name = chance.choice(SERVICES)
                port = 80 + SERVICES.index(name)
                ports = (Port(port, protocol=Protocol.TCP, local=13000 + port),)
                self.services[name] = Service(name, ports, plaintext=chance.random() < 0.5)
                if chance.random() < 0.2:
                    del self.services[name]
            case "host":
                number = chance.randrange(HOSTS)
                self.hosts[number] = self._host(number)
                if chance.random() < 0.2:
                    del self.hosts[number]
            case _:
                at = chance.choice(SERVICES), chance.randrange(HOSTS)
                self.serves[at] = 8080 + chance.randrange(2)
                if chance.random() < 0.3:
                    del self.serves[at]
        return self.known()

    def _host(self, number: int) -> Workload:
        ways = [*[Interception.EXPLICIT] * 3, Interception.TRANSPARENT, Interception.NONE]
        return Workload(
            f"host-{number}",
            "rack",
            "rack/list",
            identity=self.chance.choice([*WHO, None]),
            addresses=(f"10.0.0.{number + 1}",),
            interception=self.chance.choice(ways),
            locality=Locality(self.chance.choice(["r-1", "r-2"]), self.chance.choice(["a", "b"])),
        )

    def known(self) -> Known:
        endpoints = (
            Endpoint(
                name, self.services[name].ports[0].number, f"10.0.0.{number + 1}", target,
                there.id, "rack", "rack/list", identity=there.identity,
                interception=there.interception, locality=there.locality,
            )
            for (name, number), target in self.serves.items()
            if name in self.services and (there := self.hosts.get(number))
        )  # fmt: skip
        services, workloads = frozenset(self.services.values()), frozenset(self.hosts.values())
        return Known("rack", "rack/list", services, workloads, frozenset(endpoints))

    def policy(self) -> Specified:
        route = (TcpRoute(ObjectName("shop", "tcp")), "p:1")
        targets = [
            (
                TrafficTarget(
                    ObjectName("shop", f"target-{n}"),
                    self.chance.choice(WHO),
                    frozenset(self.chance.sample(WHO, 2)),
                    (Rule("TCPRoute", "tcp"),),
                ),
                f"p:{n + 2}",
            )
            for n in range(3)
        ]
        return Specified("files:policy", policies=(route, *targets))


async def anew(published: Published, lived: Publisher) -> Publisher:
    """Another publisher of what the catalog has, with the certificates of the first."""
    metrics, mesh = Metrics(CollectorRegistry()), await published.catalog.read()
    account, presence = Account(mesh.revision, metrics), Presence(metrics)
    made = Publisher(mesh, published.catalog, lived._custody, account, metrics, presence, "another")
    await made.begin()
    return made


async def told(publisher: Publisher, stream: Subscriber) -> tuple[object, ...] | None:
    """Its class, and versions by name and type; None where it is let in no more."""
    try:
        there = await publisher.open(stream.peer)
    except Refusal:
        return None
    return said(there)


def said(stream: Subscriber) -> tuple[object, ...]:
    """Without its certificate, which goes a lane of its own."""
    world = stream.world.resources
    versions = {
        (kind, name): each.version
        for kind, its in world.items()
        for name, each in its.items()
        if name != OWN
    }
    return stream.kind, stream.workload, versions


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    made = Published(tmp_path)
    yield made
    made.catalog.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_who_lived_through_it_tells_what_one_started_anew_does(
    published: Published, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    scene = Scene(chance)
    for _ in range(30):
        scene.change()
    monkeypatch.setattr(publishing, "KNOWN", scene.known())
    monkeypatch.setattr(publishing, "ALLOWED", scene.policy())
    lived = await published.open()
    await lived.begin()
    streams: list[Subscriber] = []
    for _ in range(20):
        match chance.choice(["hosts", "hosts", "hosts", "policy", "mesh"]):
            case "hosts":
                await published.catalog.believe(scene.change(), kind="test", cause="")
            case "policy":
                await published.catalog.specify(scene.policy())
            case _:
                near = Preferences(Preference(prefer=("same-zone",)))
                await published.catalog.configure(
                    DOMAIN,
                    permissive=chance.random() < 0.5,
                    federation=chance.choice([NO_PREFERENCES, near]),
                )
        await lived._advance()
        for host in scene.hosts.values():
            if host.identity and chance.random() < 0.4:
                try:
                    streams.append(await lived.open(peer(host)))
                except Refusal:
                    continue  # it has no sidecar, or the mesh does not know it yet
        if lived._reshape.is_set():
            lived._shape()
        await lived._custody.check()
        other = await anew(published, lived)
        for stream in list(streams):
            expected = await told(other, stream)
            assert (expected is None) == bool(stream.ended)
            if stream.ended:
                stream.close()
                streams.remove(stream)
            else:
                assert said(stream) == expected
                assert stream in lived._members[stream.kind]
        assert other._worlds.without_effect() == lived._worlds.without_effect()
    assert replace(lived._mesh, at="") == replace(await published.catalog.read(), at="")


async def test_where_a_caller_is_counts_from_the_moment_when_a_preference_asks_for_it(
    published: Published,
) -> None:
    publisher = await published.open()
    await publisher.begin()
    caller = await publisher.open(peer(BUYING))
    there = structs.replace(BUYING, locality=Locality("eu", "eu-1a"))
    moved = replace(KNOWN, workloads=frozenset({there, SELLING}))
    await published.catalog.believe(moved, kind="test", cause="")
    await publisher._advance()
    publisher._shape()
    assert (caller.workload, caller.kind.near.locality) == (there, ANYWHERE)
    near = Preferences(Preference(prefer=("same-zone",)))
    await published.catalog.configure(DOMAIN, permissive=False, federation=near)
    await publisher._advance()
    publisher._shape()
    assert caller.kind.near.locality == there.locality
