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


class Thing(msgspec.Struct):
    metadata: Meta


class Described(msgspec.Struct):
    metadata: Meta
    spec: Spec


class Definitions(msgspec.Struct):
    items: list[Described]


class Objects(msgspec.Struct):
    items: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Definition:
    """A CRD of the release, and how many objects would go with it."""

    name: str
    objects: int


async def housed(api: Line, namespace: str) -> bool:
    """Whether the namespace had to be made. Raises Unreachable or Refused."""
    if await _labels(api, namespace) is not None:
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
    labels = await _labels(api, namespace)
    ours = labels is not None and OURS.items() <= labels.items()
    return ours and await gone(api, f"{NAMESPACES}/{namespace}")


async def unhooked(api: Line, release: str) -> bool:
    """No pod waits for the webhook any more; whether there was one."""
    return await gone(api, f"{WEBHOOKS}/{release}")


async def definitions(api: Line, release: str) -> list[Definition]:
    """Raises Unreachable or Refused."""
    selector = f"app.kubernetes.io/part-of=meshfed,app.kubernetes.io/instance={release}"
    async with api.get(DEFINITIONS, {"labelSelector": selector}) as answer:
        found = msgspec.json.decode(await whole(answer), type=Definitions).items
    return [Definition(each.metadata.name, await _counted(api, each.spec)) for each in found]


async def undefined(api: Line, definition: Definition) -> None:
    await gone(api, f"{DEFINITIONS}/{definition.name}")


async def gone(api: Line, path: str) -> bool:
    """Whether it was there. Raises Unreachable or Refused."""
    async with api.delete(path) as answer:
        body = await answer.read()
        if answer.status == 404:
            return False
        await _accepted(answer.status, body)
        return True


async def _counted(api: Line, spec: Spec) -> int:
    version = next(each.name for each in spec.versions if each.served)
    path = f"/apis/{spec.group}/{version}/{spec.names.plural}"
    until = time.monotonic() + PATIENCE
    while True:
        async with api.get(path, {}) as answer:
            if answer.status == 404:  # it is being deleted, or not served yet
                return 0
            # For a second after a CRD was written: "storage is (re)initializing".
            if answer.status != 429 or time.monotonic() > until:
                return len(msgspec.json.decode(await whole(answer), type=Objects).items)
        await asyncio.sleep(PAUSE)


async def _labels(api: Line, namespace: str) -> dict[str, str] | None:
    async with api.get(f"{NAMESPACES}/{namespace}", {}) as answer:
        if answer.status == 404:
            return None
        return msgspec.json.decode(await whole(answer), type=Thing).metadata.labels


async def _accepted(code: int, body: bytes) -> None:
    if code >= 300:
        raise Refused(code, status(body).message)
