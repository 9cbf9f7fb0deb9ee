"""What Helm leaves to others: the namespace, the webhook's end, definitions with objects."""

import asyncio
import time
from dataclasses import dataclass

import msgspec

from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.membership import whole
from meshfed.providers.kubernetes.messages import Refused, status

NAMESPACES = "/api/v1/namespaces"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATIENCE, PAUSE = 15.0, 0.5  # seconds for who says that it is busy, and between two questions
# Of a namespace that was made here, and that goes with what is in it.
OURS = {"app.kubernetes.io/managed-by": "meshfed"}
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Names(msgspec.Struct):
    plural: str


class Version(msgspec.Struct):
    name: str
    served: bool


class Spec(msgspec.Struct):
    group: str
    names: Names
    versions: list[Version]


class Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Thing(msgspec.Struct):
    metadata: Meta


class Described(msgspec.Struct):
    metadata: Meta
    spec: Spec


class Definitions(msgspec.Struct):
    items: list[Described]


class Rest(msgspec.Struct, rename="camel"):
    remaining_item_count: int = 0


class Objects(msgspec.Struct):
    metadata: Rest
    items: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Owner:
    """A release of Helm, which writes it on all that it makes."""

    release: str
    namespace: str

    def has(self, thing: Meta) -> bool:
        said = {
            "meta.helm.sh/release-name": self.release,
            "meta.helm.sh/release-namespace": self.namespace,
        }
        return said.items() <= thing.annotations.items()


async def housed(api: Line, namespace: str) -> bool:
    """Whether the namespace had to be made. Raises Unreachable or Refused."""
    if await _described(api, f"{NAMESPACES}/{namespace}"):
        return False
    made = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": OURS | RESTRICTED},
    }
    async with api.post(NAMESPACES, made) as answer:
        await _accepted(answer.status, await answer.read())
    return True


async def unhoused(api: Line, namespace: str) -> bool:
    """Whether the namespace goes, which it does if it was made here."""
    path = f"{NAMESPACES}/{namespace}"
    found = await _described(api, path)
    return found is not None and OURS.items() <= found.labels.items() and await gone(api, path)


async def unhooked(api: Line, owner: Owner) -> bool:
    """No pod waits for the owner's webhook any more; whether there was one."""
    path = f"{WEBHOOKS}/{owner.release}"
    found = await _described(api, path)
    return found is not None and owner.has(found) and await gone(api, path)


async def definitions(api: Line, owner: Owner) -> list[Described]:
    """The owner's CRDs. Raises Unreachable or Refused."""
    selector = f"app.kubernetes.io/part-of=meshfed,app.kubernetes.io/instance={owner.release}"
    async with api.get(DEFINITIONS, {"labelSelector": selector}) as answer:
        found = msgspec.json.decode(await whole(answer), type=Definitions).items
    return [each for each in found if owner.has(each.metadata)]


async def undefined(api: Line, definition: Described) -> None:
    await gone(api, f"{DEFINITIONS}/{definition.metadata.name}")


async def gone(api: Line, path: str) -> bool:
    """Whether it was there. Raises Unreachable or Refused."""
    async with api.delete(path) as answer:
        body = await answer.read()
        if answer.status == 404:
            return False
        await _accepted(answer.status, body)
        return True


async def counted(api: Line, spec: Spec) -> int | None:
    """How many objects there are; None: no version is served, and nobody can say."""
    version = next((each.name for each in spec.versions if each.served), None)
    if version is None:
        return None
    path = f"/apis/{spec.group}/{version}/{spec.names.plural}"
    until = time.monotonic() + PATIENCE
    while True:
        async with api.get(path, {"limit": "1"}) as answer:
            if answer.status == 404:  # it is being deleted, or not served yet
                return 0
            # For a second after a CRD was written: "storage is (re)initializing".
            if answer.status != 429 or time.monotonic() > until:
                found = msgspec.json.decode(await whole(answer), type=Objects)
                return len(found.items) + found.metadata.remaining_item_count
        await asyncio.sleep(PAUSE)


async def _described(api: Line, path: str) -> Meta | None:
    """None: it is not there."""
    async with api.get(path, {}) as answer:
        if answer.status == 404:
            return None
        return msgspec.json.decode(await whole(answer), type=Thing).metadata


async def _accepted(code: int, body: bytes) -> None:
    if code >= 300:
        raise Refused(code, status(body).message)
