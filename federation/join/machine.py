"""The machine's side of joining: a key that stays here, and what comes back for it."""

import http.client
import json
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.model import Identity, Workload
from meshfed.catalog.times import stamp
from meshfed.federation.certificates import proxyfiles
from meshfed.federation.certificates.keypair import key_pem, request
from meshfed.federation.join.answer import Answer
from meshfed.federation.join.imds import Silent, evidence
from meshfed.federation.join.secret import pin
from meshfed.federation.join.trust import control_plane, issued
from meshfed.xds.bootstrap import (
    BUNDLE,
    BUNDLE_SDS,
    CERTIFICATE,
    CERTIFICATE_SDS,
    KEY,
)

PORT = 15129
PATIENCE = 15.0  # seconds for the control plane to answer
MOST = 1 << 20  # bytes of an answer
LATEST = 1e11  # seconds since the epoch, in year 5138: no certificate is issued after it
MEMORY = "/dev/shm"  # for a key that no disk takes
OURS = "meshfed"  # the folder in /etc
JOINED = "join.json"  # where it joined, for renewing and leaving
TOKEN = "token"  # one that was kept, for joining again
CAPTURE = "capture.json"  # what of its traffic goes through its sidecar, where it is intercepted
WRITTEN = (
    proxyfiles.ENVOY,
    *(KEY, CERTIFICATE, BUNDLE, CERTIFICATE_SDS, BUNDLE_SDS, JOINED, TOKEN, CAPTURE),
)


class Unjoinable(Exception):
    """Why this machine did not join; one line. The server's status, where it was the server."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """Where the join server is, and the roots that its certificate must lead to (PEM).

    Where those are not known yet, the SHA-256 of one of them.
    """

    host: str
    port: int
    roots: str = ""
    pin: bytes = b""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url!r} is not https://HOST:PORT")
        return cls(parts.hostname, parts.port or PORT)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Papers:
    """What this machine has from joining before."""

    url: str
    trust_domain: str
    name: str
    folder: Path
    bundle: str = field(repr=False)
    issued_at: float  # seconds since the epoch, by this machine's clock
    not_before: float
    not_after: float
    addresses: tuple[str, ...] = ()  # which it gave for its own
    probes: tuple[str, ...] = ()
    imds: str = ""  # where Azure attested what this machine is, if that let it in
    interception: str = "explicit"
    ports: tuple[int, ...] = ()  # of its applications, if it is called

    @classmethod
    def read(cls, folder: Path) -> "Papers | None":
        """None when it never joined. Raises Unjoinable when they are of no use."""
        try:
            said = json.loads((folder / JOINED).read_text())
            certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
            bundle = (folder / BUNDLE).read_text()
            begins = certificate.not_valid_before_utc.timestamp()
            ends = certificate.not_valid_after_utc.timestamp()
            who = str(said["url"]), str(said["trust_domain"]), str(said["name"])
            issued_at = float(said.get("issued_at", begins))
            if not abs(issued_at) < LATEST:
                raise ValueError("issued at no moment")
            addresses = tuple(map(str, said.get("addresses", ())))
            probes = tuple(map(str, said.get("probes", ())))
            imds = str(said.get("imds", ""))
            life = issued_at, begins, ends
            interception = str(said.get("interception", "explicit"))
            ports = tuple(map(int, said.get("ports", ())))
            return cls(*who, folder, bundle, *life, addresses, probes, imds, interception, ports)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Unjoinable(f"{folder}: damaged: remove it, and join with a token") from error

    @property
    def server(self) -> Server:
        """Where it joined, believed by the roots it has. Raises Unjoinable."""
        try:
            return replace(Server.parse(self.url), roots=self.bundle)
        except ValueError as error:
            raise Unjoinable(f"{self.folder / JOINED}: url: {error}") from error

    def valid(self, now: float) -> bool:
        return now < self.not_after

    def due(self, now: float) -> bool:
        """Two thirds of its life are over, or the clock says that it has not begun."""
        renew_at = self.issued_at + (self.not_after - self.issued_at) * 2 / 3
        return not self.not_before <= now < renew_at

    @property
    def ended(self) -> str:
        """What to do once it has."""
        ended = f"the certificate of {self.name} ended at {stamp(self.not_after)}"
        return f"{ended}: join with a new token, after `meshfed deregister {self.name}` if need be"


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


def files(
    answer: Answer,
    key: ec.EllipticCurvePrivateKey,
    server: Server,
    folder: Path,
    addresses: Sequence[str] = (),
    imds: str = "",
    ports: Sequence[int] = (),
) -> Mapping[str, bytes]:
    """All that an Envoy here needs. Raises Unjoinable when the answer does not fit the key."""
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    if certificate.public_key() != key.public_key():
        raise Unjoinable("the certificate that came back is for another key")
    workload = Workload(
        answer.name,
        PROVIDER,
        scope(answer.name),
        identity=Identity.parse(answer.identity),
        bind=answer.bind,
    )
    host, _, port = answer.xds.rpartition(":")
    asked = f"[{server.host}]" if ":" in server.host else server.host
    where = f"{host or asked}:{port}"
    start = proxyfiles.start(
        workload, answer.trust_domain, where, proxyfiles.admin(workload), folder
    )
    said = {
        "url": server.url,
        "trust_domain": answer.trust_domain,
        "name": answer.name,
        "addresses": [*addresses],
        "probes": [*answer.probes],
        "imds": imds,
        "interception": answer.interception,
        "ports": [*(answer.ports or ports)],
        "issued_at": time.time(),
    }
    return {
        **start,
        KEY: key_pem(key).encode(),
        CERTIFICATE: answer.certificate.encode(),
        BUNDLE: answer.bundle.encode(),
        JOINED: json.dumps(said).encode(),
    }


def kept(folder: Path, token: str) -> None:
    """Keep a token, readable by the folder's owner alone. Raises OSError."""
    (folder / TOKEN).unlink(missing_ok=True)
    proxyfiles.put(folder / TOKEN, token.encode())


def removed(folder: Path) -> None:
    """Take away what joining wrote, and the folder if nothing else is in it. Raises OSError."""
    ours = (*(folder / name for name in WRITTEN), *folder.glob("..*"))
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for each in (folder, folder.parent):
        if not any(each.iterdir()) and each.name in (folder.name, OURS):
            each.rmdir()


# What is asked over the network


def trusted(server: Server, wanted: bytes) -> Server:
    """To be believed by the hash of a root."""
    return replace(server, pin=wanted)


def join(
    server: Server,
    folder: Path,
    asked: Mapping[str, object],
    papers: Papers | None,
    addresses: Sequence[str] = (),
    imds: str = "",
) -> str:
    """Join, or renew by the papers, and write what came back; the workload's name.

    `imds`: have Azure attest there which machine this is. Raises Unjoinable, OSError.
    """
    # What cannot be written costs no use of a token, and no certificate.
    proxyfiles.room(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request(key).public_bytes(Encoding.PEM).decode()
    if papers is None:
        asked = {**asked, "untrusted_addresses": [*addresses]}
    else:
        addresses, imds = papers.addresses, papers.imds
    ports = papers.ports if papers else ()
    if papers is None and imds:
        asked = {**asked, **attestation(server, imds)}
    with closing(opened(server, papers)) as line:
        said_to = answered(server, line, "POST", "/v1/join", {**asked, "csr": csr})
    answer = accepted(server, *said_to)
    try:
        said = msgspec.json.decode(answer, type=Answer)
        written = files(said, key, server, folder, addresses, imds, ports)
    except ValueError as error:
        raise Unjoinable(f"{server.url}: its answer is not of this version of meshfed") from error
    try:
        proxyfiles.write(folder, written)
    except OSError as error:
        if papers is None:
            raise Unjoinable(
                f"{folder}: {error.strerror}: {_undone(server, said, written)}"
            ) from error
        raise
    return said.name


def _undone(server: Server, said: Answer, written: Mapping[str, bytes]) -> str:
    """Leave again, by papers that stand nowhere else; what has become of that."""
    try:
        with TemporaryDirectory(dir=MEMORY) as folder:
            proxyfiles.write(Path(folder), written)
            if papers := Papers.read(Path(folder)):
                leave(replace(server, roots=said.bundle), papers)
    except (OSError, Unjoinable) as why:
        return f"`meshfed deregister {said.name}` on the control plane: it joined, and {why}"
    return f"{said.name} has left again, and a use of the token is gone"


def attestation(server: Server, imds: str) -> Mapping[str, object]:
    """What Azure attests of this machine, for this server and now. Raises Unjoinable, OSError."""
    with closing(opened(server, None)) as line:
        status, nonce = answered(server, line, "GET", "/v1/nonce")
    if status != HTTPStatus.OK:
        raise Unjoinable(f"{server.url}: it takes no attested documents: it answered {status}")
    try:
        return evidence(imds, nonce)
    except Silent as silent:
        raise Unjoinable(f"Azure attests nothing here: {silent}") from silent


def leave(server: Server, papers: Papers) -> None:
    """Raises Unjoinable, OSError."""
    with closing(opened(server, papers)) as line:
        accepted(server, *answered(server, line, "POST", "/v1/leave", {}))


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


def _context(server: Server) -> ssl.SSLContext:
    """It has to lead to the roots. Raises Unjoinable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # `connected` looks for the control plane's URI instead
    try:
        context.load_verify_locations(cadata=server.roots)
    except (ssl.SSLError, ValueError) as error:
        raise Unjoinable("the roots to trust are no certificates in PEM") from error
    return context


def opened(server: Server, papers: Papers | None) -> http.client.HTTPSConnection:
    """A connection to the control plane, and to nobody else. Raises Unjoinable, OSError."""
    if papers:
        return connected(server, identified(server, papers), papers.trust_domain)
    if server.roots or not server.pin:
        return connected(server, _context(server), "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
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
    return opened(replace(server, roots=root), None)


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
