"""Keeps a copy of one kind of Kubernetes objects, and says what changes in it.

It survives what the official client's watch and informer do not: a server that restarts, a history
that was compacted (410), a connection whose other end is gone, throttling, a kind that is not there
yet, and an object that is not what it should be.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from meshfed.catalog.model import Evidence, Rejected
from meshfed.providers.kubernetes.messages import (
    EVENT,
    LISTED,
    Answer,
    Api,
    Body,
    Event,
    Key,
    Refused,
    Unreachable,
    ended,
    named,
    refusal,
    retry_after,
    seen,
    status,
)

T = TypeVar("T")
PAGE = 250  # objects in one answer: some milliseconds of parsing
SLICE = 0.005  # seconds of work, after which everybody else has a turn
INITIAL = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
UNSTREAMED = frozenset({400, 422})  # how servers without WatchList answer to INITIAL
OBJECTS = frozenset({"ADDED", "MODIFIED", "DELETED"})


@dataclass(frozen=True, slots=True)
class Pace:
    """How long everything may take, in seconds."""

    first: float = 0.2  # the pause after one failure; doubled for each more
    longest: float = 30.0
    headers: float = 15.0  # until an answer begins: a half-dead connection never gives one
    idle: float = 75.0  # bookmarks come about once a minute
    watch: float = 290.0  # then the server ends it, and another begins
    grace: float = 3.0  # what is mended by then is no trouble: API servers do restart
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic


PACE = Pace()


class Gone(Exception):
    """What happened since is not known any more: everything must be listed again."""


def failure(event: Event) -> Gone | Refused:
    """Why a watch ended."""
    said = status(event.object)
    return Gone() if said.code == 410 else Refused(said.code, said.message)


class Unstreamed(Exception):
    """The server cannot list by a watch."""


TROUBLE = (Unreachable, Refused, TimeoutError, OSError, msgspec.DecodeError)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """Which objects, and what is kept of each."""

    path: str
    type: type[T]
    key: Callable[[T], Key] | None = None
    labels: str = ""  # selector
    fields: str = ""  # selector

    @property
    def plural(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def query(self) -> dict[str, str]:
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: selector for name, selector in chosen.items() if selector}


@dataclass(slots=True)
class Copy(Generic[T]):
    """A list in the making."""

    held: dict[Key, T] = field(default_factory=dict)
    refused: dict[Key, Rejected] = field(default_factory=dict)


class Change(Struct, Generic[T], frozen=True):
    """What became of one object."""

    key: Key
    before: T | None
    after: T | None
    evidence: Evidence = Evidence.STATED  # or it is missing from a list
    strange: bool = False  # it is refused now, or is no longer


def pause(failures: int, pace: Pace, chance: float) -> float:
    """Seconds to wait after so many failures: doubled each time, and spread by half."""
    return min(pace.longest, pace.first * 2.0 ** min(failures - 1, 30)) * (0.5 + chance)


class Turns:
    """Whoever works for long lets the others have a turn in between."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def turn(self) -> None:
        if time.perf_counter() - self._since > SLICE:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


class Reflector(Generic[T]):
    """A copy of the objects of one kind."""

    def __init__(
        self,
        api: Api,
        kind: Kind[T],
        heard: Callable[[Change[T]], None],
        stood: Callable[[], None],
        pace: Pace = PACE,
    ) -> None:
        self.kind = kind
        self.held: dict[Key, T] = {}
        self.refused: dict[Key, Rejected] = {}
        self.lists = 0  # how often all was listed
        self.fault = ""  # why nothing can be heard now
        self._since = 0.0  # when that began
        self._api = api
        self._heard = heard
        self._stood = stood  # called when `lists` or `fault` has moved
        self._pace = pace
        self._decoder = msgspec.json.Decoder(kind.type)
        self._version = ""  # what is held is all up to here; empty: list again
        self._streams = True  # the server may list by a watch
        self._failures = 0
        self._reading: asyncio.Timeout | None = None
        self._cut = False  # a watch, to list again

    @property
    def troubled_at(self) -> float:
        """When a fault, if there is one, has lasted so long that it is trouble."""
        return self._since + self._pace.grace

    @property
    def trouble(self) -> str:
        """Why nothing could be heard for some time."""
        return self.fault if self._pace.clock() >= self.troubled_at else ""

    @property
    def faltering(self) -> bool:
        """Something is wrong that may yet be over soon."""
        return bool(self.fault) and not self.trouble

    def relist(self) -> None:
        """List everything again, now rather than when the watch ends."""
        if self._version and self._reading:
            self._cut = True
            self._reading.reschedule(asyncio.get_running_loop().time())
        self._version = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            begun, after, self._cut = self._pace.clock(), 0.0, False
            try:
                await self._once()
                # A server that ends each watch at once would else be asked without a pause.
                failed = self._pace.clock() - begun < self._pace.first and not self._cut
            except Gone:
                self._version, failed = "", True
            except TROUBLE as error:
                failed, after = True, error.after if isinstance(error, Refused) else 0.0
                self._trouble(error)
            lasted = self._pace.clock() - begun > self._pace.longest
            self._failures = (1 if lasted else self._failures + 1) if failed else 0
            if failed:
                chance = random.random()  # so that not all come back at once
                await self._pace.rest(max(after, pause(self._failures, self._pace, chance)))

    async def _once(self) -> None:
        """Until a watch ends."""
        if not self._version and self._streams:
            with suppress(Unstreamed):
                await self._watch(Copy())
                return
            self._streams = False
        if not self._version:
            await self._list()
        await self._watch(None)

    async def _list(self) -> None:
        copy: Copy[T] = Copy()
        page = {"limit": str(PAGE)}
        turns = Turns()
        while True:
            async with self._api.get(self.kind.path, {**self.kind.query, **page}) as answer:
                body = await self._whole(answer)
            listed = LISTED.decode(body)
            for raw in listed.items or ():
                self._keep(copy, *self._read(raw))
                await turns.turn()
            if not listed.metadata.next:
                return await self._replace(copy, listed.metadata.version)
            page["continue"] = listed.metadata.next

    async def _watch(self, copy: "Copy[T] | None") -> None:
        """Hears what happens, until the server ends it; with a copy, first lists into that."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._pace.watch * random.uniform(0.8, 1.2))),
            **(INITIAL if copy else {"resourceVersion": self._version}),
        }
        async with self._api.get(self.kind.path, {**self.kind.query, **query}) as answer:
            if copy and answer.status in UNSTREAMED:
                raise Unstreamed
            if answer.status != 200:
                await self._whole(answer)
            if not copy:
                self._answered()
            lists = self.lists
            try:
                async with asyncio.timeout(self._pace.idle) as self._reading:
                    await self._hear(answer.content, copy, self._reading)
                if copy and self.lists == lists:
                    raise Unreachable("the answer ended before all was listed")
            except TimeoutError:
                # Nothing for so long, not even a bookmark: the other end may be gone. A server that
                # knows nothing of INITIAL never says that that was all.
                if copy and self.lists == lists:
                    self._streams = False
            finally:
                self._reading = None

    async def _whole(self, answer: Answer) -> bytes:
        """All of an answer that is as it should be. Raises Gone or Refused."""
        async with asyncio.timeout(self._pace.idle):
            body = await answer.read()
        if answer.status == 410:
            raise Gone
        if answer.status != 200:
            raise Refused(answer.status, status(body).message, retry_after(answer.headers))
        return body

    async def _hear(self, body: Body, copy: "Copy[T] | None", reading: asyncio.Timeout) -> None:
        loop, turns, rest = asyncio.get_running_loop(), Turns(), b""
        last: Event | None = None
        try:
            async for chunk in body.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = EVENT.decode(line)
                    if event.type == "ERROR":
                        raise failure(event)
                    if event.type in OBJECTS:
                        self._object(event, copy)
                    elif copy and ended(event.object):
                        reading.reschedule(None)
                        await self._replace(copy, seen(event.object).resource_version)
                        copy = None
                    last = event
                    await turns.turn()
                if not self._cut:
                    reading.reschedule(loop.time() + self._pace.idle)
            if rest.strip():
                raise Unreachable("the answer ended within an object")
        finally:
            if last and self._version:  # else it is to list again
                self._version = seen(last.object).resource_version or self._version

    def _object(self, event: Event, copy: "Copy[T] | None") -> None:
        key, found = self._read(event.object)
        if copy:
            self._keep(copy, key, found)
        else:
            self._event(event.type, key, found)

    def _keep(self, copy: "Copy[T]", key: Key, found: T | Rejected) -> None:
        if isinstance(found, Rejected):
            copy.refused[key] = found
        else:
            copy.held[key] = found

    def _read(self, raw: msgspec.Raw) -> tuple[Key, T | Rejected]:
        """Read once: what is kept of an object mostly has its name."""
        try:
            found = self._decoder.decode(raw)
            return self.kind.key(found) if self.kind.key else named(raw), found
        except msgspec.ValidationError as error:
            meta = seen(raw)
            key = meta.namespace, meta.name
            return key, refusal(key, self.kind.plural, error)

    def _event(self, what: str, key: Key, found: T | Rejected) -> None:
        before = self.held.get(key)
        known = self.refused.pop(key, None)
        if what == "DELETED":
            self.held.pop(key, None)
            if before is not None or known:
                self._heard(Change(key, before, None, strange=bool(known)))
        elif isinstance(found, Rejected):  # what was known before it stays
            self.refused[key] = found
            if found != known:
                self._heard(Change(key, before, before, strange=True))
        else:
            self.held[key] = found
            if found != before or known:
                self._heard(Change(key, before, found, strange=bool(known)))

    async def _replace(self, copy: "Copy[T]", version: str) -> None:
        """What is held is this now; only what is different is told."""
        before, turns = self.held, Turns()
        for key in copy.refused.keys() & before.keys():
            copy.held[key] = before[key]
        strange = {k for k, why in copy.refused.items() if why != self.refused.get(k)}
        strange |= self.refused.keys() - copy.refused.keys()
        self.held, self.refused = copy.held, copy.refused
        for key in before.keys() - copy.held.keys():
            self._heard(Change(key, before[key], None, Evidence.LISTED))
            await turns.turn()
        for key, found in copy.held.items():
            if key in strange or found != before.get(key):
                self._heard(Change(key, before.get(key), found, strange=key in strange))
            await turns.turn()
        for key in strange - copy.held.keys() - before.keys():
            self._heard(Change(key, None, None, strange=True))
        self._version = version
        self.lists += 1
        self.fault = ""
        self._stood()

    def _answered(self) -> None:
        if self.fault:
            self.fault = ""
            self._stood()

    def _trouble(self, error: Exception) -> None:
        if not self.fault:
            self._since = self._pace.clock()
        self.fault = str(error) or "no answer in time"
        self._stood()
