"""Keeps a cluster's API server trusting the webhook: the caBundle is what the mesh's roots are.

A chart that is applied again, or an authority that is another, leaves a wrong one; the leader puts
it right within a second or so, and no pod of a meshed namespace is made meanwhile.
"""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import structlog

from meshfed.federation.inject.raw import Operation
from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Refused, Unreachable, status
from meshfed.providers.kubernetes.reflect import PACE, Kind, Pace, Reflector

PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
GLANCE = 1.0  # seconds between two looks at the roots
PAUSE = 5.0  # seconds after the API server did not let itself be told

log = structlog.get_logger()


class Client(msgspec.Struct, rename="camel"):
    ca_bundle: str | None = None


class Hook(msgspec.Struct, rename="camel"):
    name: str
    client_config: Client = msgspec.field(default_factory=Client)


class Meta(msgspec.Struct):
    name: str


class Configuration(msgspec.Struct):
    """As much of a MutatingWebhookConfiguration as is kept right."""

    metadata: Meta
    webhooks: tuple[Hook, ...] | None = None


def bundle(roots_pem: str) -> str:
    return base64.b64encode(roots_pem.encode()).decode()


def repaired(found: Configuration, roots_pem: str) -> Iterator[Operation]:
    """What is to be changed in it; the names make sure that it is still what was looked at."""
    wanted = bundle(roots_pem)
    for n, hook in enumerate(found.webhooks or ()):
        if hook.client_config.ca_bundle != wanted:
            yield {"op": "test", "path": f"/webhooks/{n}/name", "value": hook.name}
            path = f"/webhooks/{n}/clientConfig/caBundle"
            yield {"op": "add", "path": path, "value": wanted}


class Trust:
    """One cluster's; run by whoever leads."""

    def __init__(
        self, cluster: str, name: str, api: Line, roots: Callable[[], str], pace: Pace = PACE
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._api = api
        self._roots = roots
        self._moved = asyncio.Event()
        kind = Kind(PATH, Configuration, fields=f"metadata.name={name}")
        self._watch = Reflector(api, kind, lambda _: self._moved.set(), self._moved.set, pace)
        self._trouble = ""

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run())
            while True:
                self._moved.clear()
                self._say(await self._keep())
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE if self._trouble else GLANCE):
                        await self._moved.wait()

    async def _keep(self) -> str:
        """Why it is not what it should be."""
        if self._watch.trouble or not self._watch.lists:
            return self._watch.trouble
        if not self._watch.held:
            return f"there is no MutatingWebhookConfiguration {self._name}: no pod gets a sidecar"
        for found in self._watch.held.values():
            changes = list(repaired(found, self._roots()))
            try:
                if changes:
                    await self._change(changes)
                    log.info("webhook trusted", cluster=self._cluster, webhook=self._name)
            except (Unreachable, Refused) as why:
                return str(why)
        return ""

    def _say(self, trouble: str) -> None:
        """Once each way."""
        if trouble and trouble != self._trouble:
            log.warning("webhook not trusted", cluster=self._cluster, reason=trouble)
        self._trouble = trouble

    async def _change(self, changes: list[Operation]) -> None:
        """Raises Unreachable and Refused."""
        async with self._api.operate(f"{PATH}/{self._name}", changes) as answer:
            body = await answer.read()
        if answer.status != 200:
            raise Refused(answer.status, status(body).message)
