"""Where the xDS server listens, and which certificate it shows there."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """The control plane's certificate, and the roots that its peers' are verified with; PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    roots: bytes = b""


def credentials(tls: Callable[[], Tls], *, certified: bool = True) -> grpc.ServerCredentials:
    """Asked at every handshake, from grpc's threads: a renewed certificate needs no restart.

    `certified`: only clients with a certificate of the roots get through it; else none is asked
    for, as grpc cannot ask without insisting.
    """
    shown = tls()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = tls()
        if newest == shown:
            return None
        shown = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(shown), renewed, require_client_authentication=certified
    )


def configuration(tls: Tls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.chain)], tls.roots)


def claim(listen: str) -> None:
    """Try the address with a plain socket first: grpc fails with pages on stderr and no reason."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {listen} for xDS: {why}") from error
