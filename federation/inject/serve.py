"""The webhook as a part of the control plane: its port, its certificate, and whose pods it is for.

It shows the control plane's own certificate, so what API servers trust it by are the mesh's roots.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable

from meshfed.federation.admin import app as admin
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.inject.app import app
from meshfed.federation.inject.cluster import Cluster
from meshfed.federation.inject.trust import GLANCE, Trust
from meshfed.federation.join.tls import carry
from meshfed.federation.lead import Duty
from meshfed.federation.settings import Refused, Settings
from meshfed.providers.kubernetes.access import line
from meshfed.providers.kubernetes.options import Where, options
from meshfed.providers.kubernetes.reflect import PACE

KUBERNETES = "kubernetes"


class Webhook:
    """For the clusters of the providers, in the order of the configuration."""

    def __init__(self, settings: Settings, control: ControlPlane) -> None:
        """Raises Refused: without a cluster nobody would ask."""
        self._injection = settings.injection
        self._control = control
        self._clusters: dict[str, Where] = {
            each.name: options(each.name, each.options, settings.base).where
            for each in settings.providers
            if each.type == KUBERNETES
        }
        if not self._clusters:
            why = "no cluster would ask: name a provider of type kubernetes"
            raise Refused(settings.reject(("injection", "listen"), why))

    def duties(self) -> list[Duty]:
        """A leader's: one for each cluster."""
        return [self._trust(name, where) for name, where in self._clusters.items()]

    async def _trust(self, cluster: str, where: Where) -> None:
        api = line(where, PACE)
        try:
            name = self._injection.webhook
            await Trust(cluster, name, api, lambda: self._control.roots_pem).run()
        finally:
            await api.close()

    async def run(self, listener: socket.socket, refused: Callable[[str], None]) -> None:
        """Answer on a bound socket until cancelled, on every replica.

        Of the rest it reads what the control plane's certificate is, and nothing more: it may run
        in a thread of its own.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.set_alpn_protocols(["http/1.1"])
        carry(made, self._control.current)
        lines = {name: line(where, PACE) for name, where in self._clusters.items()}
        clusters = {name: Cluster(api) for name, api in lines.items()}
        api = app(lambda: self._injection, lambda: self._control.roots_pem, clusters)
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in clusters.values():
                    tasks.create_task(each.run())
                tasks.create_task(self._keep(made))
                door = "injection.listen"
                tasks.create_task(admin.serve(api, listener, made, refused=refused, door=door))
        finally:
            for one in lines.values():
                await one.close()

    async def _keep(self, made: ssl.SSLContext) -> None:
        """Serve with the certificate that the control plane has by now, for ever."""
        pair = self._control.current
        while True:
            await asyncio.sleep(GLANCE)
            if self._control.current is not pair:
                pair = self._control.current
                carry(made, pair)
