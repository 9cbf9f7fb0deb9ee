"""Where the xDS server listens, with which options of grpc, and the certificate it shows there."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

MEBIBYTE = 1 << 20

OPTIONS = (
    # Two control planes on one port would each get some of the proxies, and nobody would know.
    ("grpc.so_reuseport", 0),
    # Streams beyond 1,000 that wait to be picked up are dropped at random (xds.md, finding 7).
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ("grpc.max_concurrent_streams", 1_000_000),
    # A request is the node (61 KB from Envoy) and the names of what it subscribes to.
    ("grpc.max_receive_message_length", 8 * MEBIBYTE),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 1024),
    # Connections end now and then, so that proxies spread over all replicas, also over new ones.
    # grpc makes each a tenth longer or shorter, by chance; who is told to go away has the grace.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    # Nothing else notices a dead peer on an idle stream (T14).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # else a stopped proxy is noticed after 60 s (tried)
    ("grpc.http2.max_pings_without_data", 0),
    # Sidecars ping as well; five minutes between pings is what grpc would tolerate.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


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
