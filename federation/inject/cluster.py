"""What is known of a cluster for the reviews of its pods: its namespaces, and how old it is."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from meshfed.federation.inject.app import Unasked
from meshfed.federation.inject.decide import MEMBER, Namespace, offered
from meshfed.federation.inject.raw import Unfit
from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Refused, Unreachable, status
from meshfed.providers.kubernetes.reflect import PACE, Kind, Pace, Reflector

NAMESPACES = "/api/v1/namespaces"
PATIENCE = 3.0  # seconds for what is looked for anew; API servers wait ten for a webhook
STANDS = 300.0  # seconds for which a version is not asked for again: clusters are upgraded
# Kubelets know native sidecars from 1.29 on, and are three minor versions older than their API
# server at most: https://kubernetes.io/releases/version-skew-policy/#kubelet
NATIVE = (1, 29 + 3)


class Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Seen(msgspec.Struct):
    """A namespace, as far as injection goes by it."""

    metadata: Meta

    @property
    def namespace(self) -> Namespace:
        said = self.metadata
        return Namespace(said.name, said.labels or {}, said.annotations or {})


class Version(msgspec.Struct):
    """Of the API server, as it says itself; some have a `+` behind the minor one."""

    major: str
    minor: str

    @property
    def numbers(self) -> tuple[int, int]:
        """Raises ValueError."""
        return int(self.major), int(self.minor.rstrip("+"))


SEEN = msgspec.json.Decoder(Seen)
VERSION = msgspec.json.Decoder(Version)
TROUBLE = (Unreachable, Refused, msgspec.DecodeError, ValueError)


def asks(namespace: Namespace) -> bool:
    """Whether its pods are to have sidecars."""
    try:
        return offered(namespace)
    except Unfit:
        return False


class Cluster:
    """Its namespaces in the mesh are watched.

    The API server asks because it has seen a label, perhaps a moment before the watch tells of it:
    what would leave a pod without its sidecar is looked at again.
    """

    def __init__(
        self, api: Line, pace: Pace = PACE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._clock = clock
        self._watches = [
            Reflector(api, Kind(NAMESPACES, Seen, labels=label), lambda _: None, lambda: None, pace)
            for label in MEMBER
        ]
        self._native: bool | None = None
        self._asked = 0.0  # when that was

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in self._watches:
                tasks.create_task(each.run())

    async def told(self, name: str) -> Namespace | None:
        """None where there is none. Raises Unasked."""
        held = [each.held["", name].namespace for each in self._watches if ("", name) in each.held]
        if held and all(asks(each) for each in held):
            return held[0]
        try:
            body = await self._got(f"{NAMESPACES}/{name}")
            return SEEN.decode(body).namespace if body else None
        except TROUBLE as error:
            raise Unasked(f"namespace {name}: {error}") from error

    async def native(self) -> bool:
        """Whether all its kubelets know native sidecars. Raises Unasked."""
        now = self._clock()
        if self._native is None or now - self._asked >= STANDS:
            try:
                version = VERSION.decode(await self._got("/version"))
                self._native, self._asked = version.numbers >= NATIVE, now
            except TROUBLE as error:
                if self._native is None:
                    raise Unasked(f"the cluster's version: {error}") from error
        return self._native

    async def _got(self, path: str) -> bytes:
        """Nothing of what is not there. Raises Unreachable and Refused."""
        try:
            async with asyncio.timeout(PATIENCE), self._api.get(path, {}) as answer:
                body = await answer.read()
        except TimeoutError as error:
            raise Unreachable(f"no answer in {PATIENCE:.0f} s") from error
        if answer.status == 404:
            return b""
        if answer.status != 200:
            raise Refused(answer.status, status(body).message)
        return body
