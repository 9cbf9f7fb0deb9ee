"""The join server's side of TLS: the mesh's own certificate, and the client's if it shows one."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.keypair import GLANCE, Keypair

LONGEST = 20.0  # seconds that one connection may last; a join takes milliseconds
SHOWN = "meshfed.certificate"  # where the ASGI scope has the client's, in DER

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Connection(H11Protocol):
    """One connection: says which certificate the client showed, and does not last for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls else None
        inner: App = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await inner({**scope, SHOWN: shown}, receive, send)

        self.app = app
        self._end = asyncio.get_running_loop().call_later(LONGEST, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


def context(control: ControlPlane) -> ssl.SSLContext:
    """TLS 1.3. A client's certificate must be of this mesh and valid now, if it shows one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_OPTIONAL
    made.num_tickets = 0  # machines come with long rests, and resume nothing
    made.load_verify_locations(cadata=control.roots_pem)
    made.set_alpn_protocols(["http/1.1"])
    carry(made, control.current)
    return made


async def keep(made: ssl.SSLContext, control: ControlPlane) -> None:
    """Serve with the certificate that the control plane has by now, for ever."""
    pair, roots = control.current, control.roots_pem
    while True:
        await asyncio.sleep(GLANCE)
        if control.current is not pair:
            pair = control.current
            carry(made, pair)
        if control.roots_pem != roots:
            roots = control.roots_pem
            made.load_verify_locations(cadata=roots)


def carry(made: ssl.SSLContext, pair: Keypair) -> None:
    """Python takes certificates from files alone; this one is in memory, as the key has to be."""
    file = os.memfd_create("meshfed", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(file), "wb") as both:
            both.write(f"{pair.chain_pem}{pair.key_pem}".encode())
        made.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
