"""Which kinds of SMI a cluster has, and in which version they are read."""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec

from meshfed.federation.specification.smi import GROUPS, SHAPES
from meshfed.providers.kubernetes.messages import Api, Refused, status
from meshfed.providers.kubernetes.reflect import TROUBLE, Pace, pause

# What is read, by kind: the group, and the name of the resource.
RESOURCES = {
    "TrafficTarget": (GROUPS["TrafficTarget"], "traffictargets"),
    "HTTPRouteGroup": (GROUPS["HTTPRouteGroup"], "httproutegroups"),
    "TCPRoute": (GROUPS["TCPRoute"], "tcproutes"),
    "TrafficSplit": (GROUPS["TrafficSplit"], "trafficsplits"),
    "UDPRoute": (GROUPS["TCPRoute"], "udproutes"),  # to be refused, as in files, where it is known
}
AGAIN = 60.0  # seconds between two looks at a cluster that has them all
SOON = 2.0  # seconds between two looks at one that does not


T = TypeVar("T")


class Version(msgspec.Struct):
    version: str


class Group(msgspec.Struct):
    versions: list[Version]


class Resource(msgspec.Struct):
    name: str


class Resources(msgspec.Struct):
    resources: list[Resource] | None = None


def newest(kind: str, having: Mapping[str, Collection[str]]) -> str:
    """The version in which a kind is read, of those with what each has; empty: in none.

    One that is not understood is better than none: its objects are refused, as in files.
    """
    _, plural = RESOURCES[kind]
    versions = dict.fromkeys((*SHAPES.get(kind, ()), *having))
    return next((each for each in versions if plural in having.get(each, ())), "")


class Served:
    """Looks again and again, and soon when something is missing or was asked for."""

    def __init__(self, api: Api, pace: Pace, wake: Callable[[], None]) -> None:
        self.versions: Mapping[str, str] = {}  # by kind, empty where it is not there; once known
        self.fault = ""  # why nobody knows
        self._since = 0.0  # when that began
        self._api = api
        self._pace = pace
        self._wake = wake
        self._asked = asyncio.Event()

    @property
    def missing(self) -> list[str]:
        """The kinds that a mesh needs and the cluster does not know."""
        return [kind for kind in SHAPES if self.versions and not self.versions[kind]]

    @property
    def troubled_at(self) -> float:
        return self._since + self._pace.grace

    @property
    def trouble(self) -> str:
        return self.fault if self._pace.clock() >= self.troubled_at else ""

    @property
    def faltering(self) -> bool:
        return bool(self.fault) and not self.trouble

    def ask(self) -> None:
        """Something that was there cannot be read: it may be there in another version."""
        self._asked.set()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._pace.idle):
                    self.versions = await self._look()
                failures, self.fault = 0, ""
            except TROUBLE as error:
                self._since = self._since if self.fault else self._pace.clock()
                self.fault = str(error) or "no answer in time"
                failures += 1
            self._wake()
            await self._rest(failures)

    async def _rest(self, failures: int) -> None:
        if failures:
            await self._pace.rest(pause(failures, self._pace, random.random()))
            return
        await self._pace.rest(min(SOON, self._pace.longest))
        if not self.missing:
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await self._asked.wait()
        self._asked.clear()

    async def _look(self) -> Mapping[str, str]:
        having: dict[str, dict[str, list[str]]] = {}
        for group in dict.fromkeys(GROUPS.values()):
            found = await self._get(f"/apis/{group}", Group)
            there = [each.version for each in found.versions] if found else []
            having[group] = {version: await self._plurals(group, version) for version in there}
        return {kind: newest(kind, having[group]) for kind, (group, _) in RESOURCES.items()}

    async def _plurals(self, group: str, version: str) -> list[str]:
        found = await self._get(f"/apis/{group}/{version}", Resources)
        return [each.name for each in (found.resources if found else None) or ()]

    async def _get(self, path: str, of: type[T]) -> T | None:
        """None where there is no such thing."""
        async with self._api.get(path, {}) as answer:
            body = await answer.read()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Refused(answer.status, status(body).message)
        return msgspec.json.decode(body, type=of)
