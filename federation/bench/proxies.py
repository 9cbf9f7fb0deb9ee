"""Proxies that only listen: ADS streams over mutual TLS that acknowledge everything at once.

`python -m meshfed.federation.bench.proxies DIALECT` is a process of them, told what to do by
lines of JSON: what clients cost is not the control plane's.
"""

import asyncio
import base64
import gc
import json
import ssl
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from sys import intern

from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from meshfed.federation.bench.asked import wanted
from meshfed.federation.bench.http2 import Call, Closed
from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY
from meshfed.xds.resource import SHORT, Type
from meshfed.xds.secrets import INBOUND, OWN

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
METHODS = {"delta": f"{ADS}/DeltaAggregatedResources", "sotw": f"{ADS}/StreamAggregatedResources"}
ORDER = (Type.CLUSTER, Type.ENDPOINTS, Type.SECRET, Type.LISTENER, Type.ROUTES)
ALL = "*"
PATIENCE = 120.0  # seconds until every proxy must have been told everything
AGAIN = (0.5, 1.0, 2.0, 4.0)  # seconds before the next attempt, as bootstrap has Envoy do
INTERNAL = 13  # what Envoy's rejections have for a code
REFUSED = "refused, to see what becomes of it"
BARE = "bare"  # a server that is no control plane: its first message is all of it

Event = tuple[float, str, int, int, int]  # acknowledged at, type, resources, removed, bytes


class Tally:
    """How many responses all of a process's proxies were sent, since that was asked last."""

    def __init__(self) -> None:
        self._responses = 0
        self._moved = asyncio.Event()

    def count(self) -> None:
        self._responses += 1
        self._moved.set()

    def clear(self) -> None:
        self._responses = 0

    async def reaches(self, responses: int) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._responses < responses:
                    self._moved.clear()
                    await self._moved.wait()
        return self._responses >= responses


class Proxy(asyncio.Protocol):
    """One workload's, over any number of connections: it remembers what it was told."""

    def __init__(self, name: str, dialect: str, tally: "Tally") -> None:
        self.name = name
        self._tally = tally
        self.events: list[Event] = []
        self.bodies: list[bytes] | None = None  # everything that it is sent, while that is kept
        self.whole: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.refusing = False  # the next response is rejected
        self._dialect = dialect
        self._awaits = 0
        self._names: dict[Type, dict[str, None]] = {kind: {} for kind in ORDER}
        self._names[Type.SECRET] |= {OWN: None, INBOUND: None}
        self._held: dict[Type, dict[str, str]] = {kind: {} for kind in ORDER}
        self._last: dict[Type, tuple[str, str]] = {}  # version and nonce, for SotW
        self._pending: set[tuple[Type, str]] = set()  # asked on this stream, and not answered
        self.greetings = 0  # messages that a bare server begins with

    def held(self) -> dict[str, dict[str, str]]:
        """Versions by name, by type, of what a delta proxy was told and did not refuse."""
        return {SHORT[kind]: held for kind, held in self._held.items()}

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self.transport, self.ended = transport, loop.create_future()
        if self.whole.done():
            self.whole = loop.create_future()
        self._call = Call(METHODS["sotw" if self._dialect == "sotw" else "delta"])
        self._last, self._pending, self._awaits = {}, set(), self.greetings
        first = (k for k in ORDER if k in (Type.CLUSTER, Type.LISTENER) or self._names[k])
        for n, kind in enumerate(first):
            self._begin(kind, node=n == 0)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._call.receive(data):
                self._answer(message)
        except Closed as closed:
            self._end(str(closed))
            return
        self._flush()
        if self._dialect == BARE:
            self._pending = self._pending if self._awaits > 0 else set()
        if not self._pending and not self.whole.done():
            self.whole.set_result(time.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection is gone: {exc}")

    def _flush(self) -> None:
        if self._call.outgoing and self.transport is not None:
            self.transport.write(b"".join(self._call.outgoing))
            self._call.outgoing.clear()

    def _end(self, why: str) -> None:
        if self.transport is not None:
            self.transport.abort()  # what else it says is not for the next connection's call
        if not self.ended.done():
            self.ended.set_result(why)

    # The conversation

    def _begin(self, kind: Type, *, node: bool) -> None:
        named = tuple(self._names[kind])
        request: DiscoveryRequest | DeltaDiscoveryRequest
        if self._dialect == "sotw":
            request = DiscoveryRequest(type_url=kind, resource_names=named)
            self._pending.add((kind, ALL))
        else:
            held = self._held[kind]
            request = DeltaDiscoveryRequest(
                type_url=kind, resource_names_subscribe=named, initial_resource_versions=held
            )
            # Of what it holds of these it is told only what is other now, which may be nothing.
            whole = kind in (Type.CLUSTER, Type.LISTENER)
            asked = named if not whole else () if held else (ALL,)
            self._pending |= {(kind, name) for name in asked}
        if node:
            request.node.id = self.name
        self._call.send(request.SerializeToString())

    def _answer(self, message: bytes) -> None:
        at = time.monotonic()  # before the answer is on its way, which the next may follow at once
        if self.bodies is not None:
            self.bodies.append(message)
        take = self._state if self._dialect == "sotw" else self._difference
        kind, resources, removed = take(message)
        self._flush()
        self.events.append((at, SHORT[kind], resources, removed, len(message)))
        self._tally.count()

    def _difference(self, message: bytes) -> tuple[Type, int, int]:
        said = DeltaDiscoveryResponse.FromString(message)
        kind = Type(said.type_url)
        answer = DeltaDiscoveryRequest(type_url=kind, response_nonce=said.nonce)
        if self.refusing:
            self.refusing = False
            answer.error_detail.code, answer.error_detail.message = INTERNAL, REFUSED
            self._call.send(answer.SerializeToString())
            return kind, len(said.resources), len(said.removed_resources)
        self._call.send(answer.SerializeToString())
        self._flush()  # before anything else is looked at
        self._pending.discard((kind, ALL))
        self._awaits -= 1
        held = self._held[kind]
        if self._dialect != BARE:
            for each in said.resources:
                held[intern(each.name)] = intern(each.version)
                self._pending.discard((kind, each.name))
            for name in said.removed_resources:
                held.pop(name, None)
                self._pending.discard((kind, name))
            self._ask(kind, (each.resource.value for each in said.resources))
        return kind, len(said.resources), len(said.removed_resources)

    def _ask(self, kind: Type, packed: Iterable[bytes]) -> None:
        more: dict[Type, list[str]] = defaultdict(list)
        for asked, name in wanted(kind, packed):
            if name not in self._names[asked]:
                self._names[asked][name] = None
                self._pending.add((asked, name))
                more[asked].append(name)
        for asked, names in more.items():
            request = DeltaDiscoveryRequest(type_url=asked, resource_names_subscribe=names)
            self._call.send(request.SerializeToString())

    def _state(self, message: bytes) -> tuple[Type, int, int]:
        said = DiscoveryResponse.FromString(message)
        kind = Type(said.type_url)
        self._last[kind] = said.version_info, said.nonce
        self._pending.discard((kind, ALL))
        self._repeat(kind)
        self._flush()
        grown = set()
        for asked, name in wanted(kind, (each.value for each in said.resources)):
            if name not in self._names[asked]:
                self._names[asked][name] = None
                grown.add(asked)
        for asked in grown:
            self._pending.add((asked, ALL))
            self._repeat(asked)
        return kind, len(said.resources), 0

    def _repeat(self, kind: Type) -> None:
        version, nonce = self._last.get(kind, ("", ""))
        whole = kind in (Type.CLUSTER, Type.LISTENER)
        request = DiscoveryRequest(
            type_url=kind,
            version_info=version,
            response_nonce=nonce,
            resource_names=() if whole else self._names[kind],
        )
        self._call.send(request.SerializeToString())


def tls(papers: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(papers / BUNDLE))
    context.check_hostname = False  # it has none
    context.load_cert_chain(papers / CERTIFICATE, papers / KEY)
    context.set_alpn_protocols(["h2"])
    return context


class Group:
    """All proxies of this process."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._tally = Tally()
        self._proxies: list[tuple[Proxy, ssl.SSLContext]] = []
        self._streams: list[asyncio.Task[None]] = []
        self._lost: list[str] = []
        self._address = ("", 0)

    def furnish(self, address: str, folders: list[str]) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._proxies = [
            (Proxy(path.name, self._dialect, self._tally), tls(path)) for path in map(Path, folders)
        ]

    def expect(self, greetings: int) -> None:
        for proxy, _ in self._proxies:
            proxy.greetings = greetings

    async def connect(self) -> dict[str, object]:
        """All at once, and until each was told all that it asked for; when that was, of each."""
        self._lost = []
        began = time.monotonic()
        self._streams = [asyncio.create_task(self._keep(*each)) for each in self._proxies]
        wholes = [proxy.whole for proxy, _ in self._proxies]
        async with asyncio.timeout(PATIENCE):
            at = await asyncio.gather(*wholes)
        return {"began": began, "whole": at, "lost": self._lost}

    async def _keep(self, proxy: Proxy, context: ssl.SSLContext) -> None:
        """Connected for ever: when its stream ends it comes back, as an Envoy does."""
        loop, attempts = asyncio.get_running_loop(), 0
        while True:
            why = ""
            try:
                await loop.create_connection(lambda: proxy, *self._address, ssl=context)
                why = await proxy.ended
            except OSError as error:
                why = str(error)
            self._lost.append(f"{proxy.name}: {why}")
            await asyncio.sleep(AGAIN[min(attempts, len(AGAIN) - 1)])
            attempts += 1

    async def drop(self) -> None:
        """Every connection ends at once."""
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        for proxy, _ in self._proxies:
            if proxy.transport:
                proxy.transport.abort()
            with suppress(asyncio.InvalidStateError):
                proxy.whole = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)

    def pause(self, every: int) -> None:
        """One in so many stops reading."""
        for proxy, _ in self._proxies[::every] if every else ():
            if proxy.transport:
                proxy.transport.pause_reading()

    def resume(self) -> None:
        for proxy, _ in self._proxies:
            if proxy.transport and not proxy.transport.is_reading():
                proxy.transport.resume_reading()

    def events(self) -> dict[str, object]:
        """What came since this was asked last."""
        self._tally.clear()
        told = {proxy.name: proxy.events for proxy, _ in self._proxies if proxy.events}
        for proxy, _ in self._proxies:
            proxy.events = []
        lost, self._lost = self._lost, []
        return {"events": told, "lost": lost}

    async def reaches(self, responses: int) -> dict[str, object]:
        return {"reached": await self._tally.reaches(responses)}

    def refuse(self, every: int) -> None:
        """One in so many rejects what it is sent next, and no other does; 0: nobody."""
        for number, (proxy, _) in enumerate(self._proxies):
            proxy.refusing = every > 0 and number % every == 0

    def held(self) -> dict[str, object]:
        return {"held": {proxy.name: proxy.held() for proxy, _ in self._proxies}}

    def keep(self) -> None:
        """From now on the first keeps what it is sent."""
        self._proxies[0][0].bodies = []

    def kept(self) -> dict[str, object]:
        first = self._proxies[0][0]
        bodies, first.bodies = first.bodies or [], None
        return {"bodies": [base64.b64encode(body).decode() for body in bodies]}


async def obey(group: Group, order: dict[str, object]) -> dict[str, object]:
    match order.pop("do"):
        case "furnish":
            group.furnish(**order)  # type: ignore[arg-type]  # our own words, out of JSON
            gc.disable()  # a search among what 500 proxies remember stops them all for 0.5 s
        case "expect":
            group.expect(**order)  # type: ignore[arg-type]
        case "connect":
            return await group.connect()
        case "drop":
            await group.drop()
        case "pause":
            group.pause(**order)  # type: ignore[arg-type]
        case "resume":
            group.resume()
        case "refuse":
            group.refuse(**order)  # type: ignore[arg-type]
        case "held":
            return group.held()
        case "events":
            return group.events()
        case "reach":
            return await group.reaches(**order)  # type: ignore[arg-type]
        case "keep":
            group.keep()
        case "kept":
            return group.kept()
    return {}


async def main(dialect: str) -> None:
    """Obeys lines of JSON until there are no more."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    group = Group(dialect)
    while line := await lines.readline():
        print(json.dumps(await obey(group, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
