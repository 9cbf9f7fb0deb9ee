"""Which namespaces of a cluster are in a mesh: those with its label."""

from dataclasses import dataclass

import msgspec

from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Answer, Refused, status
from meshfed.providers.kubernetes.options import INJECT, OSM, OURS

PATH = "/api/v1/namespaces"


@dataclass(frozen=True, slots=True)
class Member:
    """A namespace, and the label by which it is in a mesh."""

    namespace: str
    mesh: str
    label: str


class Meta(msgspec.Struct):
    name: str
    labels: dict[str, str] | None = None


class Namespace(msgspec.Struct):
    metadata: Meta

    @property
    def members(self) -> list[Member]:
        labels = self.metadata.labels or {}
        return [
            Member(self.metadata.name, labels[label], label)
            for label in (OURS, OSM)
            if label in labels
        ]


class Namespaces(msgspec.Struct):
    items: list[Namespace]


async def namespaces(api: Line) -> list[Namespace]:
    """All that there are. Raises Unreachable or Refused."""
    async with api.get(PATH, {}) as answer:
        found = msgspec.json.decode(await whole(answer), type=Namespaces).items
    return sorted(found, key=lambda namespace: namespace.metadata.name)


async def label(api: Line, namespace: str, mesh: str | None) -> None:
    """Puts it into a mesh, with sidecars, or out of ours. Raises Unreachable or Refused."""
    labels = {OURS: mesh, INJECT: "enabled" if mesh else None}
    change = {"metadata": {"labels": labels}}
    async with api.patch(f"{PATH}/{namespace}", change) as answer:
        await whole(answer)


async def whole(answer: Answer) -> bytes:
    body = await answer.read()
    if answer.status != 200:
        raise Refused(answer.status, status(body).message)
    return body
