"""One cluster: which of its namespaces count, and what is to be told of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial

from meshfed.catalog.model import LABEL, Evidence, Observation, Rejected
from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.index import PODS, put
from meshfed.providers.kubernetes.messages import Api
from meshfed.providers.kubernetes.monitors import Monitors
from meshfed.providers.kubernetes.namespace import Namespace
from meshfed.providers.kubernetes.options import Options
from meshfed.providers.kubernetes.reflect import Change, Kind, Pace, Reflector, Turns

Scope = tuple[str, str]  # namespace, and service or PODS

WHOLE: Scope = ("*", PODS)  # what is wrong with the cluster as a whole
# Seconds for which what was missing from a list makes all that is missing from its scope doubtful;
# each look at it again begins them anew. A doubt is looked at every 30 s at least.
DOUBTFUL = 60.0


def same(one: Observation, other: Observation) -> bool:
    """Whether they say the same, on whatever evidence."""
    return (
        one.endpoints == other.endpoints
        and one.workloads == other.workloads
        and one.services == other.services
        and (one.scope, one.fault, one.rejected) == (other.scope, other.fault, other.rejected)
    )


class Cluster:
    def __init__(self, options: Options, api: Api, pace: Pace, wake: Callable[[], None]) -> None:
        self._place = options.place
        self._api = api
        self._pace = pace
        self._wake = wake
        nodes = Kind("/api/v1/nodes", objects.Node, objects.name)
        self._nodes = Reflector(api, nodes, self._node, wake, pace)
        self._monitors = Monitors(options.monitored, api, pace, self._left, wake)
        self._where: dict[str, objects.Node] = {}
        self._spaces: dict[str, Namespace] = {}
        self._departed: dict[str, Evidence] = {}  # how we know that a namespace is gone
        self._touched: dict[Scope, Evidence] = {}
        self._told: dict[Scope, Observation] = {}
        self._asked: dict[Scope, int | None] = {}  # since which list of all; None: none yet
        self._doubtful: dict[Scope, float] = {}  # until when
        self._waits = 0.0  # until when it is not told that trouble is over while a part has it
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        self._start("nodes", self._nodes.run())
        for each in self._monitors.reflectors:
            self._start(f"namespaces {each.kind.labels}", each.run())

    async def end(self) -> None:
        for name in list(self.tasks):
            self._stop(name)
        await asyncio.gather(*self._stopping, return_exceptions=True)

    def ask(self, scope: str) -> None:
        """It is to be told again, after another look."""
        provider, *parts = scope.split("/")
        if provider == self._place.provider and len(parts) in (1, 2):
            namespace, name = (*parts, PODS)[:2]
            if (namespace, name) == WHOLE or all(LABEL.fullmatch(part) for part in parts):
                self._asked.setdefault((namespace, name), None)

    @property
    def due(self) -> float:
        """When something is to be told though nothing is heard."""
        return min(
            (
                *(each.troubled_at for each in self._reflectors if each.faltering),
                *(each.index.due for each in self._spaces.values()),
                *((self._waits,) if self._waits > self._pace.clock() else ()),
            ),
            default=float("inf"),
        )

    async def news(self) -> AsyncIterator[Observation]:
        """What is to be told now: services first."""
        now, turns = self._pace.clock(), Turns()
        self._monitor()
        for each in self._spaces.values():
            each.index.tidy(now)
            self._stand(each)
        self._look(now)
        asked = self._answered()
        touched, self._touched = self._touched, {}
        for scope in sorted(touched, key=lambda scope: (scope == WHOLE, scope[1] == PODS, scope)):
            seen = self._observation(scope, touched[scope], now, again=scope in asked)
            if seen:
                yield seen
            await turns.turn()

    # Which namespaces there are

    def _monitor(self) -> None:
        if not self._monitors.known:
            return
        wanted = self._monitors.names
        for name in self._spaces.keys() - wanted:
            self._stop(name)
            del self._spaces[name]
            self._all_told(name, self._departed.pop(name, Evidence.LISTED))
        for name in wanted - self._spaces.keys():
            touch = partial(self._touch, name)
            space = Namespace(name, self._place, self._api, self._pace, touch, self._wake)
            self._spaces[name] = space
            self._start(name, space.run())

    def _start(self, name: str, running: Coroutine[None, None, None]) -> None:
        task = self.tasks[name] = asyncio.create_task(running)
        task.add_done_callback(lambda _: self._wake())

    def _stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _left(self, change: Change[objects.Namespace]) -> None:
        if change.after is None:
            self._departed[change.key[1]] = change.evidence
        self._wake()

    def _stand(self, space: Namespace) -> None:
        """Whether it can be heard has changed: all that is known of it is told again."""
        trouble = space.troubled
        if not space.index.begun and space.lists and (self._nodes.lists or self._nodes.fault):
            space.index.begun = True
            for name in space.scopes():
                self._touched[space.name, name] = Evidence.LISTED
        elif bool(trouble) == bool(space.trouble):
            return  # in other words now, perhaps: each would be written to all its endpoints
        space.trouble = trouble
        if trouble and not space.index.begun:
            self._touched[space.name, PODS] = Evidence.LISTED
        self._all_told(space.name, Evidence.LISTED)

    def _all_told(self, namespace: str, evidence: Evidence) -> None:
        for scope in self._told:
            if scope[0] == namespace:
                self._touched[scope] = evidence

    def _touch(self, namespace: str, name: str, evidence: Evidence) -> None:
        scope = namespace, name
        if evidence is Evidence.LISTED:
            self._doubtful[scope] = self._pace.clock() + DOUBTFUL
        if namespace in self._spaces and self._spaces[namespace].index.begun:
            self._touched.setdefault(scope, Evidence.STATED)
            self._wake()

    def _node(self, change: Change[objects.Node]) -> None:
        put(self._where, change.key[1], change.after)
        for each in self._spaces.values():
            if each.index.begun:
                each.index.node(change.key[1])

    # The cluster as a whole

    @property
    def _reflectors(self) -> list[Reflector[objects.Node] | Reflector[objects.Namespace]
                                  | Reflector[objects.Service] | Reflector[objects.Slice]
                                  | Reflector[objects.Pod]]:  # fmt: skip
        mine = [each for space in self._spaces.values() for each in space.reflectors]
        return [self._nodes, *self._monitors.reflectors, *mine]

    def _look(self, now: float) -> None:
        """Tells the whole after its parts: its trouble, and when that is over."""
        whole, known = self._whole(), self._told.get(WHOLE)
        if whole.fault:
            self._waits = now + 2 * self._pace.longest  # by then all have asked again
            ready = not any(each.faltering for each in self._reflectors)
        else:
            ready = self._monitors.known and all(
                each.index.begun or each.trouble for each in self._spaces.values()
            )
            if known and known.fault and now < self._waits:
                ready = ready and not any(each.fault for each in self._reflectors)
        nothing = not self._told and not self._touched
        if ready and (whole.fault or whole.rejected or known or nothing) and known != whole:
            self._touched[WHOLE] = Evidence.LISTED

    def _whole(self) -> Observation:
        scope = self._place.scope(*WHOLE)
        if why := self._monitors.trouble:
            return Observation(scope, evidence=Evidence.FAULT, fault=why)
        rejected = [*self._nodes.refused.values()]
        if self._nodes.trouble:
            why = f"regions are not known: {self._nodes.trouble}"
            rejected.append(Rejected("nodes", "", why))
        return Observation(scope, rejected=tuple(sorted(rejected, key=str)))

    # What is told

    def _answered(self) -> set[Scope]:
        """Those of the scopes that were asked for which have been looked at since."""
        answered = set()
        for scope, since in list(self._asked.items()):
            space = self._spaces.get(scope[0])
            if space is None:
                ready = scope == WHOLE or self._monitors.known
            else:
                if since is None:
                    space.relist()
                    since = self._asked[scope] = space.lists
                ready = (space.index.begun and space.lists > since) or bool(space.trouble)
            if ready:
                del self._asked[scope]
                answered.add(scope)
                self._touched[scope] = Evidence.LISTED
                if scope in self._doubtful:
                    self._doubtful[scope] = self._pace.clock() + DOUBTFUL
        return answered

    def _observation(
        self, scope: Scope, evidence: Evidence, now: float, *, again: bool
    ) -> Observation | None:
        """What a scope is now, unless that is told already."""
        known = self._told.get(scope)
        if self._doubtful.get(scope, now) <= now:
            self._doubtful.pop(scope, None)
        elif evidence is Evidence.STATED:
            evidence = Evidence.LISTED
        namespace, name = scope
        space = self._spaces.get(namespace)
        if scope == WHOLE:
            seen = self._whole()
        elif space is None:
            seen = Observation(self._place.scope(namespace, name), evidence=evidence)
        else:
            seen = space.observation(name, evidence if known else Evidence.LISTED, self._where)
        if known and not again and same(seen, known):
            return None
        if scope == WHOLE or seen.fault or (space and space.has(name)):
            self._told[scope] = seen
        else:
            self._told.pop(scope, None)
        return seen
