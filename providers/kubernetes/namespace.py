"""One monitored namespace: copies of its services, slices and pods. Others are never read."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

from meshfed.catalog.model import Evidence, Observation, Rejected
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.index import PODS, Index, Touch
from meshfed.providers.kubernetes.messages import Api
from meshfed.providers.kubernetes.pods import Place
from meshfed.providers.kubernetes.reflect import Change, Kind, Pace, Reflector
from meshfed.providers.kubernetes.resolve import Last, Resolved, idle, resolve

# What has ended answers for nothing, and is most of what a cluster with jobs has.
RUNNING = "status.phase!=Failed,status.phase!=Succeeded"


class Namespace:
    def __init__(
        self, name: str, place: Place, api: Api, pace: Pace, touch: Touch, wake: Callable[[], None]
    ) -> None:
        self.name = name
        self.trouble = ""  # as it was told
        self.index = Index(touch, pace.clock)
        self._last: dict[str, Last] = {}  # by service
        self._place = place
        self._touch = touch
        core = f"/api/v1/namespaces/{name}"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices"
        self._services = Reflector(
            api,
            Kind(f"{core}/services", objects.Service, objects.key),
            self.index.service,
            wake,
            pace,
        )
        self._slices = Reflector(
            api, Kind(slices, objects.Slice, objects.key), self._slice, wake, pace
        )
        self._pods = Reflector(
            api,
            Kind(f"{core}/pods", objects.Pod, objects.key, fields=RUNNING),
            self._pod,
            wake,
            pace,
        )

    @property
    def lists(self) -> int:
        """How often all of it was listed."""
        return min(each.lists for each in self.reflectors)

    @property
    def reflectors(self) -> tuple[Reflector[objects.Service] | Reflector[objects.Slice]
                                  | Reflector[objects.Pod], ...]:  # fmt: skip
        return self._services, self._slices, self._pods

    @property
    def troubled(self) -> str:
        """Why it cannot be heard now."""
        found = ((each.kind.plural, each.trouble) for each in self.reflectors)
        return next((f"{plural}: {trouble}" for plural, trouble in found if trouble), "")

    def relist(self) -> None:
        for each in self.reflectors:
            each.relist()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in self.reflectors:
                tasks.create_task(each.run())

    def scopes(self) -> Iterator[str]:
        """What there is to tell of it now."""
        yield from self.index.services.keys() | {name for _, name in self._services.refused}
        if self.has(PODS):
            yield PODS

    def has(self, name: str) -> bool:
        """Whether there is such a scope."""
        if name == PODS:
            return bool(self.index.idle or self._slices.refused or self._pods.refused)
        return name in self.index.services or (self.name, name) in self._services.refused

    def observation(
        self, name: str, evidence: Evidence, nodes: Mapping[str, objects.Node]
    ) -> Observation:
        scope = self._place.scope(self.name, name)
        if self.trouble:
            return Observation(scope, evidence=Evidence.FAULT, fault=self.trouble)
        resolved = self._resolved(name, nodes)
        rejected = (*resolved.rejected, *self._refused(name))
        return Observation(
            scope,
            resolved.services,
            frozenset(resolved.workloads.values()),
            frozenset(resolved.endpoints.values()),
            evidence,
            rejected=tuple(sorted(rejected, key=str)),
        )

    def _resolved(self, name: str, nodes: Mapping[str, objects.Node]) -> Resolved:
        index = self.index
        if name == PODS:
            return idle(self._place, self.name, index.idle.values(), nodes)
        last = self._last.pop(name, None)
        if (service := index.services.get(name)) is None:
            return Resolved()
        slices = index.slices.get(name, {}).values()
        resolved = resolve(self._place, service, slices, index.pods, nodes, last)
        if resolved.last:
            self._last[name] = resolved.last
        return resolved

    def _refused(self, name: str) -> Iterator[Rejected]:
        if name == PODS:
            yield from self._slices.refused.values()
            yield from self._pods.refused.values()
        elif why := self._services.refused.get((self.name, name)):
            yield why

    def _slice(self, change: Change[objects.Slice]) -> None:
        self.index.slice(change)
        if change.strange:
            self._touch(PODS, change.evidence)

    def _pod(self, change: Change[objects.Pod]) -> None:
        self.index.pod(change)
        if change.strange:
            self._touch(PODS, change.evidence)
