"""SMI in a Kubernetes cluster: the objects of its monitored namespaces, as they change."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from meshfed.catalog.document import Document
from meshfed.catalog.model import ObjectName, Rejected, Specified
from meshfed.federation.specification.notices import Notice, Notices
from meshfed.federation.specification.served import RESOURCES, Served
from meshfed.federation.specification.smi import SHAPES, Refused, Stated, parse
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.access import Line, line
from meshfed.providers.kubernetes.messages import Key
from meshfed.providers.kubernetes.monitors import Monitors
from meshfed.providers.kubernetes.options import Monitored, Where
from meshfed.providers.kubernetes.provider import fail
from meshfed.providers.kubernetes.reflect import PACE, Kind, Pace, Reflector

Object = dict[str, object]
Heard = Served | Reflector[Object] | Reflector[objects.Namespace]

UNKNOWN = "the cluster does not know this kind: kubectl apply -f deploy/crds"


@dataclass(frozen=True, slots=True)
class Read:
    """An object, and what is thought of it."""

    object: Object
    said: Stated | Refused

    def notice(self) -> Notice | None:
        """What its owner is told, if anything is wrong with it."""
        if isinstance(self.said, Stated) or self.said.name is None:
            return None
        metadata = self.object.get("metadata")
        noted = metadata if isinstance(metadata, dict) else {}
        return Notice(
            str(self.object.get("apiVersion", "")),
            self.said.kind,
            self.said.name.namespace,
            self.said.name.name,
            str(noted.get("uid", "")),
            str(noted.get("generation", "")),
            "; ".join(str(replace(each, where="")) for each in self.said.rejected),
        )


def judged(kind: str, key: Key, thing: Object) -> Stated | Refused:
    """The same verdict as of a file with this object; it stands where kubectl finds it."""
    where = "/".join((RESOURCES[kind][1], *key))
    (found,) = parse(Document("", thing, {}))
    if isinstance(found, Stated):
        return replace(found, where=where)
    rejected = tuple(replace(each, where=where) for each in found.rejected)
    return Refused(kind, ObjectName(*key), rejected)


class Part:
    """The objects of one kind in one namespace."""

    def __init__(self, kind: str, namespace: str) -> None:
        self.kind = kind
        self.namespace = namespace
        self.group, self.plural = RESOURCES[kind]
        self.version = ""  # in which they are read; none: there is no such kind
        self.reflector: Reflector[Object] | None = None
        self.begun = False  # all of them were listed once
        self.read: dict[Key, Read] = {}
        self.nameless: tuple[Rejected, ...] = ()  # so malformed that they may be any of them

    @property
    def trouble(self) -> str:
        why = self.reflector.trouble if self.reflector else ""
        return f"{self.plural} in {self.namespace}: {why}" if why else ""

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}/namespaces/{self.namespace}/{self.plural}"

    def look(self) -> None:
        """Takes in what was heard; what is not different is not judged again."""
        if not (self.reflector and self.reflector.lists):
            return
        self.begun = True
        before = self.read
        self.read = {
            key: known
            if (known := before.get(key)) and known.object is thing
            else Read(thing, judged(self.kind, key, thing))
            for key, thing in self.reflector.held.items()
        }
        where = f"{self.plural}/{self.namespace}"
        refused = self.reflector.refused.values()
        self.nameless = tuple(replace(each, where=where) for each in refused)


def specified(source: str, parts: Iterable[Part], doubt: str) -> Specified:
    """All that they say, by kind and name."""
    parts = sorted(parts, key=lambda part: (part.kind, part.namespace))
    read = [part.read[key].said for part in parts for key in sorted(part.read)]
    return Specified(
        source,
        tuple((each.policy, each.where) for each in read if isinstance(each, Stated)),
        (
            *((r.name, r.kind, why) for r in read if isinstance(r, Refused) for why in r.rejected),
            *((None, part.kind, why) for part in parts for why in part.nameless),
        ),
        doubt=doubt,
        unread=frozenset(
            (part.kind, part.namespace) for part in parts if part.nameless or not part.begun
        ),
    )


class ClusterSpecification:
    """The objects of SMI in a cluster's monitored namespaces, and Events on those refused."""

    def __init__(self, source: str, where: Where, monitored: Monitored, pace: Pace = PACE) -> None:
        self.source = source
        self._where = where
        self._monitored = monitored
        self._pace = pace

    async def watch(self) -> AsyncGenerator[Specified, None]:
        api = line(self._where, self._pace)
        cluster = Cluster(self.source, self._monitored, api, self._pace)
        cluster.begin()
        last: Specified | None = None
        try:
            while True:
                specified = cluster.look()
                if specified is not None and specified != last:
                    last = specified
                    yield specified
                await cluster.news()
        finally:
            await cluster.end()
            await api.close()


class Cluster:
    """Reflectors of each kind in each namespace that counts, and what they have heard."""

    def __init__(self, source: str, monitored: Monitored, api: Line, pace: Pace) -> None:
        self._source = source
        self._api = api
        self._pace = pace
        self._woken = asyncio.Event()
        self._monitors = Monitors(monitored, api, pace, self._heard, self._wake)
        self._served = Served(api, pace, self._wake)
        self._notices = Notices(api, pace)
        self._parts: dict[tuple[str, str], Part] = {}  # by namespace and kind
        self._doubt = ""  # as it was told
        self._begun = False  # something was told
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        self._start("served", self._served.run())
        self._start("notices", self._notices.run())
        for each in self._monitors.reflectors:
            self._start(f"namespaces {each.kind.labels}", each.run())

    async def end(self) -> None:
        for name in list(self._tasks):
            self._stop(name)
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def news(self) -> None:
        """Until something was heard, or has lasted so long that it is trouble."""
        due = min((each.troubled_at for each in self._faltering), default=float("inf"))
        rest = due - self._pace.clock()
        with suppress(TimeoutError):
            async with asyncio.timeout(rest if rest < float("inf") else None):
                await self._woken.wait()
        self._woken.clear()

    def look(self) -> Specified | None:
        """All that is known now; None while something may be heard for the first time soon."""
        fail(self._tasks.values())
        self._arrange()
        for part in self._parts.values():
            part.look()
        if any(part.reflector and part.reflector.fault for part in self._parts.values()):
            self._served.ask()  # a version may be gone
        faltering = bool(self._faltering)
        # Until what falters is trouble, nothing would be told as a cluster with nothing in it.
        self._begun = self._begun or (self._settled and not faltering)
        if not self._begun:
            return None
        if not faltering:
            self._doubt = next(self._troubles(), "")
        if self._doubt and not any(part.begun for part in self._parts.values()):
            return Specified(self._source, fault=self._doubt)
        read = [read for part in self._parts.values() for read in part.read.values()]
        self._notices.stand(frozenset(notice for each in read if (notice := each.notice())))
        return specified(self._source, self._parts.values(), self._doubt)

    def _arrange(self) -> None:
        """A part for each kind in each namespace, with a reflector where the kind is known."""
        if not self._monitors.known:
            return
        wanted = self._monitors.names
        for namespace, kind in [at for at in self._parts if at[0] not in wanted]:
            self._reflect(self._parts.pop((namespace, kind)), "")
        for namespace in wanted:
            for kind in RESOURCES:
                part = self._parts.get((namespace, kind)) or Part(kind, namespace)
                version = self._served.versions.get(kind, part.version)
                if version or kind in SHAPES:
                    self._parts[namespace, kind] = part
                if version != part.version:
                    self._reflect(part, version)

    def _reflect(self, part: Part, version: str) -> None:
        """What was read stays until it is read again."""
        if part.reflector:
            part.look()
            self._stop(f"{part.kind} {part.namespace}")
            part.reflector = None
        part.version = version
        if version:
            kind = Kind(part.path, Object)
            part.reflector = Reflector(self._api, kind, self._heard, self._wake, self._pace)
            self._start(f"{part.kind} {part.namespace}", part.reflector.run())

    @property
    def _settled(self) -> bool:
        if self._monitors.trouble or self._served.trouble:
            return True
        return (
            self._monitors.known
            and bool(self._served.versions)
            and all(
                part.begun or not part.reflector or part.reflector.trouble
                for part in self._parts.values()
            )
        )

    def _troubles(self) -> Iterator[str]:
        """Why not all can be read now, what concerns the most first."""
        if trouble := self._monitors.trouble:
            yield trouble
        if trouble := self._served.trouble:
            yield f"kinds: {trouble}"
        for group, plural in (RESOURCES[kind] for kind in self._served.missing if self._parts):
            yield f"{plural}.{group}: {UNKNOWN}"
        yield from sorted(part.trouble for part in self._parts.values() if part.trouble)

    @property
    def _faltering(self) -> list[Heard]:
        heard: list[Heard] = [self._served, *self._monitors.reflectors]
        heard += [part.reflector for part in self._parts.values() if part.reflector]
        return [each for each in heard if each.faltering]

    def _heard(self, change: object) -> None:
        self._wake()

    def _wake(self) -> None:
        self._woken.set()

    def _start(self, name: str, running: Coroutine[None, None, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(running)
        task.add_done_callback(lambda _: self._wake())

    def _stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
