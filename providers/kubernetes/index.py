"""The objects of one namespace, and which of its scopes a change of one of them touches."""

from collections.abc import Callable
from typing import TypeVar

from meshfed.catalog.model import Evidence
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.reflect import Change

V = TypeVar("V")

PODS = ""  # the scope of the pods that answer for no service; the others are services by name
# Seconds for which a pod that begins to answer for a service stays among those too: were it gone
# from there before the catalog has it in its service, its proxy's stream would end.
LINGER = 60.0

Touch = Callable[[str, Evidence], None]


class Index:
    def __init__(self, touch: Touch, clock: Callable[[], float]) -> None:
        self.services: dict[str, objects.Service] = {}
        self.slices: dict[str, dict[str, objects.Slice]] = {}  # by service
        self.pods: dict[str, objects.Pod] = {}  # by uid
        self.idle: dict[str, objects.Pod] = {}  # by uid
        self.begun = False  # everything was listed once
        self._serves: dict[str, set[str]] = {}  # services, by uid of pod
        self._lingering: dict[str, float] = {}  # until when, by uid of pod
        self._touch = touch
        self._clock = clock

    @property
    def due(self) -> float:
        """When the next pod has lingered long enough."""
        return min(self._lingering.values(), default=float("inf"))

    def tidy(self, now: float) -> None:
        for uid in [uid for uid, until in self._lingering.items() if until <= now]:
            del self._lingering[uid]
            del self.idle[uid]
            self._touch(PODS, Evidence.STATED)

    def service(self, change: Change[objects.Service]) -> None:
        _, name = change.key
        put(self.services, name, change.after)
        self._touch(name, change.evidence)

    def slice(self, change: Change[objects.Slice]) -> None:
        _, name = change.key
        for service in {each.service for each in (change.before, change.after) if each}:
            had, has = of(change.before, service), of(change.after, service)
            mine = self.slices.setdefault(service, {})
            put(mine, name, has)
            before, after = (each.pods if each else frozenset() for each in (had, has))
            for uid in after - before:
                self._answers(uid, service)
            for uid in before - after:
                if not any(uid in other.pods for other in mine.values()):
                    self._ends(uid, service)
            if not mine:
                del self.slices[service]
            self._touch(service, change.evidence)

    def pod(self, change: Change[objects.Pod]) -> None:
        before, after = change.before, change.after
        if before and not (after and after.metadata.uid == before.metadata.uid):
            uid = before.metadata.uid
            del self.pods[uid]
            self._lingering.pop(uid, None)
            if self.idle.pop(uid, None):
                self._touch(PODS, change.evidence)
            self._services_of(uid, change.evidence)
        if after:
            uid = after.metadata.uid
            self.pods[uid] = after
            if uid in self.idle or uid not in self._serves:
                self.idle[uid] = after
                self._touch(PODS, change.evidence)
            self._services_of(uid, change.evidence)

    def node(self, name: str) -> None:
        """Something about a node is different: where it is."""
        for uid, pod in self.pods.items():
            if pod.spec.node_name == name:
                self._services_of(uid)
                if uid in self.idle:
                    self._touch(PODS, Evidence.STATED)

    def _services_of(self, uid: str, evidence: Evidence = Evidence.STATED) -> None:
        for service in self._serves.get(uid, ()):
            self._touch(service, evidence)

    def _answers(self, uid: str, service: str) -> None:
        services = self._serves.setdefault(uid, set())
        if not services and uid in self.idle:
            if self.begun:
                self._lingering[uid] = self._clock() + LINGER
            else:
                del self.idle[uid]
        services.add(service)

    def _ends(self, uid: str, service: str) -> None:
        self._serves[uid].discard(service)
        if not self._serves[uid]:
            del self._serves[uid]
            self._lingering.pop(uid, None)
            if uid in self.pods:
                self.idle[uid] = self.pods[uid]
                self._touch(PODS, Evidence.STATED)


def put(held: dict[str, V], name: str, value: V | None) -> None:
    if value is None:
        held.pop(name, None)
    else:
        held[name] = value


def of(found: objects.Slice | None, service: str) -> objects.Slice | None:
    return found if found and found.service == service else None
