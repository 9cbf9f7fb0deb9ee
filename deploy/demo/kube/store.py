"""What etcd and the watch cache hold: objects, and every change since the last compaction."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from meshfed.demo.kube.kinds import BUILT_IN, CRD, Kind, Of, defined
from meshfed.demo.kube.objects import (
    Key,
    NoSuchPath,
    Object,
    encode,
    expired,
    key,
    no_such_resource,
)
from meshfed.demo.kube.schema import pruned

What = Literal["ADDED", "MODIFIED", "DELETED"]
HISTORY = 100_000  # changes kept; a real one keeps minutes


@dataclass(frozen=True)
class Stored:
    """An object at one revision; how each version shows it is worked out once."""

    object: Object
    shown: dict[str, tuple[Object, bytes]] = field(default_factory=dict, compare=False)

    def of(self, kind: Kind) -> Object:
        return self._show(kind)[0]

    def encoded(self, kind: Kind) -> bytes:
        return self._show(kind)[1]

    def _show(self, kind: Kind) -> tuple[Object, bytes]:
        if (known := self.shown.get(kind.version)) is None:
            shown = as_version(self.object, kind)
            known = self.shown[kind.version] = shown, encode(shown)
        return known


@dataclass(frozen=True, slots=True)
class Change:
    revision: int
    of: Of
    what: What
    now: Stored
    before: Stored | None


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher is told beside changes."""

    line: bytes = b""
    bookmark: bool = False
    end: bool = False
    cut: bool = False  # the connection goes with it
    silent: bool = False  # nothing more is said, for ever


class Watcher:
    def __init__(self, of: Of) -> None:
        self.of = of
        self.queue: asyncio.Queue[Change | Told] = asyncio.Queue()


def as_version(thing: Object, kind: Kind) -> Object:
    """Conversion strategy None: the name of the version changes, and what it lacks is pruned."""
    if thing.get("apiVersion") == kind.api_version:
        return thing
    converted = {**thing, "apiVersion": kind.api_version}
    return converted if kind.schema is None else pruned(converted, kind.schema)[0]


class Store:
    """Belongs to the server's loop: `Server.call` is how others reach it."""

    def __init__(self) -> None:
        self.revision = 100
        self.floor = 100  # changes up to here are forgotten
        self.addresses = 0  # given to services
        self.changes: list[Change] = []
        self.objects: dict[Of, dict[Key, Stored]] = defaultdict(dict)
        self.kinds = {(kind.group, kind.version, kind.plural): kind for kind in BUILT_IN}
        self.storage: dict[Of, Kind] = {}  # in the version that a CRD stores
        self.watchers: set[Watcher] = set()

    def kind(self, group: str, version: str, plural: str) -> Kind:
        try:
            return self.kinds[group, version, plural]
        except KeyError:
            # What CRDs could define is behind another handler, which knows no Status.
            ours = any((each.group, each.version) == (group, version) for each in BUILT_IN)
            raise (no_such_resource() if ours else NoSuchPath) from None

    def address(self) -> str:
        """A service's address that no other has."""
        self.addresses += 1
        return f"10.0.{self.addresses // 250}.{self.addresses % 250 + 1}"

    def get(self, kind: Kind, at: Key) -> Stored | None:
        return self.objects[kind.of].get(at)

    def all(self, kind: Kind, revision: int | None = None) -> dict[Key, Stored]:
        """All of a kind, now or as they were. Raises Refusal."""
        held = dict(self.objects[kind.of])
        if revision is None or revision == self.revision:
            return held
        if revision < self.floor:
            raise expired("The resourceVersion for the provided list is too old.")
        for change in reversed(self.changes):
            if change.revision <= revision:
                break
            if change.of == kind.of:
                if change.before is None:
                    del held[key(change.now.object)]
                else:
                    held[key(change.before.object)] = change.before
        return held

    def since(self, kind: Kind, revision: int) -> Iterator[Change]:
        """Changes of a kind after a revision. Raises Refusal."""
        if revision < self.floor:
            raise expired(f"too old resource version: {revision} ({self.floor})")
        start = bisect_right(self.changes, revision, key=lambda change: change.revision)
        return (change for change in self.changes[start:] if change.of == kind.of)

    def write(self, kind: Kind, what: What, thing: Object, before: Stored | None) -> Stored:
        """Writes what was decided elsewhere, and tells whoever watches."""
        self.revision += 1
        thing["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored(self._for_storage(kind, thing))
        if what == "DELETED":
            self.objects[kind.of].pop(key(thing), None)
        else:
            self.objects[kind.of][key(thing)] = stored
        change = Change(self.revision, kind.of, what, stored, before)
        self.changes.append(change)
        if len(self.changes) > 2 * HISTORY:
            self.floor = self.changes[HISTORY - 1].revision
            del self.changes[:HISTORY]
        self._tell(change, lambda watcher: watcher.of == kind.of)
        if kind is CRD:
            self._register(thing, what)
        return stored

    def compact(self) -> None:
        """Forgets the past: whoever resumes from it is told 410."""
        self.changes.clear()
        self.floor = self.revision

    def tell(self, told: Told) -> None:
        self._tell(told, lambda _: True)

    def _tell(self, said: Change | Told, whom: Callable[[Watcher], bool]) -> None:
        for watcher in self.watchers:
            if whom(watcher):
                watcher.queue.put_nowait(said)

    def _for_storage(self, kind: Kind, thing: Object) -> Object:
        return as_version(thing, self.storage.get(kind.of, kind))

    def _register(self, crd: Object, what: What) -> None:
        of = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        stored = self.storage.pop(of, None)
        if what == "DELETED" and stored:
            for each in self.all(stored).values():
                self.write(stored, "DELETED", deepcopy(each.object), each)
            self._tell(Told(end=True), lambda watcher: watcher.of == of)
        self.kinds = {at: kind for at, kind in self.kinds.items() if kind.of != of}
        for kind, version in defined(crd) if what != "DELETED" else ():
            if version["served"]:
                self.kinds[kind.group, kind.version, kind.plural] = kind
            if version["storage"]:
                self.storage[of] = kind
