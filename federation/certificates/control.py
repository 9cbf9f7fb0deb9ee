"""The control plane's own certificate: what proxies check before they believe it."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

import structlog
from cryptography.x509 import Certificate

from meshfed.federation.certificates.issuer import Issuer, Names, Unissuable
from meshfed.federation.certificates.keypair import Failure, Keypair, glance, issue, pem
from meshfed.xds.bootstrap import control_plane_uri

log = structlog.get_logger()


class ControlPlane:
    """A pair for the xDS server that is always valid: read `current` at each handshake."""

    def __init__(
        self,
        issuer: Issuer,
        names: Names,
        lifetime: timedelta,
        clock: Callable[[], float],
        current: Keypair,
        roots: tuple[Certificate, ...],
    ) -> None:
        self._issuer = issuer
        self._names = names
        self._lifetime = lifetime
        self._clock = clock
        self._failure: Failure | None = None
        self.current = current
        self.roots = roots  # what clients' certificates are verified with

    @classmethod
    async def open(
        cls,
        issuer: Issuer,
        trust_domain: str,
        lifetime: timedelta,
        clock: Callable[[], float] = time.time,
        hosts: tuple[str, ...] = (),
    ) -> Self:
        """Raises Unissuable: without a first certificate there is nothing to serve with."""
        names = Names(control_plane_uri(trust_domain), hosts=hosts)
        current = await issue(issuer, names, lifetime, clock)
        return cls(issuer, names, lifetime, clock, current, await issuer.roots())

    @property
    def roots_pem(self) -> str:
        return pem(self.roots)

    async def run(self) -> None:
        """Renew when it is due, for ever."""
        while True:
            await asyncio.sleep(self._failure.pause if self._failure else glance(self._lifetime))
            await self.check()

    async def check(self) -> None:
        """Renew if it is due; the last good pair stays when that fails."""
        try:
            self.roots = await self._issuer.roots()
            if self.current.due(self._clock()):
                self.current = await issue(self._issuer, self._names, self._lifetime, self._clock)
            self._failure = None
        except Unissuable as error:
            count = self._failure.count + 1 if self._failure else 1
            self._failure = Failure(count, self._clock(), str(error))
            log.warning("control plane's certificate not renewed", reason=str(error))
