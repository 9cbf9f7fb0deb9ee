"""A connection of a machine to the control plane, and to nobody else; and what it says there."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from meshfed.federation.join.papers import Papers, Server, Unjoinable
from meshfed.federation.join.secret import pin
from meshfed.federation.join.trust import control_plane, issued
from meshfed.xds.bootstrap import CERTIFICATE, KEY

PATIENCE = 15.0  # seconds for the control plane to answer
MOST = 1 << 20  # bytes of an answer


def pinned(roots: str, wanted: bytes) -> str:
    """Of these roots the one that has this SHA-256. Raises Unjoinable."""
    try:
        found = x509.load_pem_x509_certificates(roots.encode())
    except ValueError as error:
        raise Unjoinable("no join server: what it gave for its roots is none") from error
    for root in found:
        if pin(root) == wanted:
            return root.public_bytes(Encoding.PEM).decode()
    theirs = ", ".join(pin(root).hex() for root in found)
    raise Unjoinable(f"not the mesh of this token: the pin is {wanted.hex()}, its root's {theirs}")


def accepted(server: Server, status: int, answer: str) -> str:
    """What it said. Raises Unjoinable where it refuses, in its own words."""
    if status == HTTPStatus.OK:
        return answer
    try:
        why = json.loads(answer)["detail"]
    except (KeyError, TypeError, ValueError):
        why = f"it answered {status}"
    raise Unjoinable(f"{server.url}: {why}", status)


def identified(server: Server, papers: Papers) -> ssl.SSLContext:
    """To show who this machine is. Raises Unjoinable, OSError."""
    context = _context(server)
    context.load_cert_chain(papers.folder / CERTIFICATE, papers.folder / KEY)
    return context


def _unnamed() -> ssl.SSLContext:
    """TLS 1.3, whatever name the other one has: `connected` looks for the control plane's URI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    return context


def _context(server: Server) -> ssl.SSLContext:
    """It has to lead to the roots. Raises Unjoinable."""
    context = _unnamed()
    try:
        context.load_verify_locations(cadata=server.roots)
    except (ssl.SSLError, ValueError) as error:
        raise Unjoinable("the roots to trust are no certificates in PEM") from error
    return context


def verified(server: Server, papers: Papers | None) -> http.client.HTTPSConnection:
    """A connection to the control plane, and to nobody else. Raises Unjoinable, OSError."""
    if papers:
        return connected(server, identified(server, papers), papers.trust_domain)
    if server.roots or not server.pin:
        return connected(server, _context(server), "")
    context = _unnamed()
    context.verify_mode = ssl.CERT_NONE  # nothing is sent but the question for what it has shown
    with ExitStack() as undone:
        line = connected(server, context, "")
        undone.callback(line.close)
        status, body = answered(server, line, "GET", "/v1/roots")
        if status != HTTPStatus.OK:
            raise Unjoinable(f"{server.url}: no join server: it answered {status}")
        root = pinned(body, server.pin)
        shown = line.sock.getpeercert(binary_form=True)
        if shown and issued(shown, root, time.time()) and control_plane(shown, ""):
            undone.pop_all()
            return line
    # Others may stand between the two, which OpenSSL alone has seen.
    return verified(replace(server, roots=root), None)


def connected(
    server: Server, context: ssl.SSLContext, trust_domain: str
) -> http.client.HTTPSConnection:
    """Once: it does not connect again by itself. Raises Unjoinable."""
    line = http.client.HTTPSConnection(server.host, server.port, timeout=PATIENCE, context=context)
    line.auto_open = 0
    with explained(server), ExitStack() as undone:
        undone.callback(line.close)
        line.connect()
        if context.verify_mode is ssl.CERT_REQUIRED:
            shown = line.sock.getpeercert(binary_form=True)
            if not shown or not control_plane(shown, trust_domain):
                raise Unjoinable(f"{server.url}: it is not the control plane of this mesh")
        undone.pop_all()
    return line


def answered(
    server: Server,
    line: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
) -> tuple[int, str]:
    """Raises Unjoinable."""
    sent = None if body is None else json.dumps(body)
    with explained(server):
        line.request(method, path, sent, {"content-type": "application/json"})
        answer = line.getresponse()
        return answer.status, answer.read(MOST).decode()


@contextmanager
def explained(server: Server) -> Iterator[None]:
    """Raises Unjoinable where the network, or TLS, fails."""
    try:
        yield
    except ssl.SSLError as error:
        why = error.reason or "the handshake failed"
        raise Unjoinable(f"{server.url}: TLS: {why.lower().replace('_', ' ')}") from error
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unjoinable(f"{server.url}: cannot be asked: {why}") from error
