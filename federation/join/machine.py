"""The machine's side of joining: a key that stays here, and what comes back for it."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from meshfed.catalog.byhand import PROVIDER, scope
from meshfed.catalog.model import Identity, Workload
from meshfed.federation.certificates import proxyfiles
from meshfed.federation.certificates.keypair import key_pem, request
from meshfed.federation.join.answer import Answer
from meshfed.federation.join.dial import accepted, answered, verified
from meshfed.federation.join.imds import Silent, evidence
from meshfed.federation.join.papers import JOINED, Papers, Server, Unjoinable
from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY

MEMORY = "/dev/shm"  # for a key that no disk takes


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


# What is asked over the network


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
    with closing(verified(server, papers)) as line:
        status, answer = answered(server, line, "POST", "/v1/join", {**asked, "csr": csr})
    try:
        said = msgspec.json.decode(accepted(server, status, answer), type=Answer)
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
    with closing(verified(server, None)) as line:
        status, nonce = answered(server, line, "GET", "/v1/nonce")
    if status != HTTPStatus.OK:
        raise Unjoinable(f"{server.url}: it takes no attested documents: it answered {status}")
    try:
        return evidence(imds, nonce)
    except Silent as silent:
        raise Unjoinable(f"Azure attests nothing here: {silent}") from silent


def leave(server: Server, papers: Papers) -> None:
    """Raises Unjoinable, OSError."""
    with closing(verified(server, papers)) as line:
        accepted(server, *answered(server, line, "POST", "/v1/leave", {}))
