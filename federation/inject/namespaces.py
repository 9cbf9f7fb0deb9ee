"""What is known of a cluster's namespaces, for the reviews of their pods."""

import asyncio

import msgspec

from meshfed.federation.inject.app import Unasked
from meshfed.federation.inject.decide import MEMBER, Namespace, offered
from meshfed.federation.inject.raw import Unfit
from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Refused, Unreachable, status
from meshfed.providers.kubernetes.reflect import PACE, Kind, Pace, Reflector

PATH = "/api/v1/namespaces"
PATIENCE = 3.0  # seconds for one that is looked for anew; API servers wait ten for a webhook


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


SEEN = msgspec.json.Decoder(Seen)


def asks(namespace: Namespace) -> bool:
    """Whether its pods are to have sidecars."""
    try:
        return offered(namespace)
    except Unfit:
        return False


class Namespaces:
    """Those in the mesh are watched.

    The API server asks because it has seen a label, perhaps a moment before the watch tells of it:
    what would leave a pod without its sidecar is looked at again.
    """

    def __init__(self, api: Line, pace: Pace = PACE) -> None:
        self._api = api
        self._watches = [
            Reflector(api, Kind(PATH, Seen, labels=label), lambda _: None, lambda: None, pace)
            for label in MEMBER
        ]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each in self._watches:
                tasks.create_task(each.run())

    async def told(self, name: str) -> Namespace | None:
        """None where there is none. Raises Unasked."""
        held = [each.held["", name].namespace for each in self._watches if ("", name) in each.held]
        if held and all(asks(each) for each in held):
            return held[0]
        return await self._looked_for(name)

    async def _looked_for(self, name: str) -> Namespace | None:
        try:
            async with asyncio.timeout(PATIENCE), self._api.get(f"{PATH}/{name}", {}) as answer:
                body = await answer.read()
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise Refused(answer.status, status(body).message)
            return SEEN.decode(body).namespace
        except TimeoutError as error:
            raise Unasked(f"namespace {name}: no answer in {PATIENCE:.0f} s") from error
        except (Unreachable, Refused, msgspec.DecodeError) as error:
            raise Unasked(f"namespace {name}: {error}") from error
