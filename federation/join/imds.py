"""Azure's instance metadata service, asked from the machine that it is of."""

import json
from base64 import b64decode
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AuthorityInformationAccessOID

IMDS = "http://169.254.169.254"
ATTESTED = "/metadata/attested/document?api-version=2021-02-01&"
PATIENCE = 5.0  # seconds
ISSUERS = "www.microsoft.com"  # where the certificates stand that sign those of the service
MOST = 1 << 16  # bytes


class Silent(Exception):
    """The service gave no answer that can be read; one line."""


def ask(
    imds: str, path: str, said: Mapping[str, object] | None = None, patience: float = PATIENCE
) -> Mapping[str, object]:
    """One question, past any proxy, which the service refuses. Raises Silent."""
    body = None if said is None else json.dumps(said)
    content = _got(imds, path, body, {"Metadata": "true"}, patience)
    if said is not None:
        return {}
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Silent(f"{imds}{path}: not JSON") from error
    return document if isinstance(document, dict) else {}


def evidence(imds: str, nonce: str) -> dict[str, object]:
    """The document that attests which machine this is, and who signed for its signer.

    Raises Silent.
    """
    said = ask(imds, ATTESTED + urlencode({"nonce": nonce}))
    if said.get("encoding") != "pkcs7" or not isinstance(document := said.get("signature"), str):
        raise Silent(f"{imds}: it attests nothing")
    try:
        bag = pkcs7.load_der_pkcs7_certificates(b64decode(document))
    except ValueError as error:
        raise Silent(f"{imds}: what it attests is not PKCS#7") from error
    chain = "".join(_issuer(each) for each in bag)
    return {"document": document, "untrusted_chain": chain}


def _issuer(certificate: x509.Certificate) -> str:
    """PEM, from where the certificate says; nothing, where that is not Microsoft's or is away.

    Azure gives the signer alone. Closed networks have the rest in `join.azure_roots`.
    """
    try:
        kind = x509.AuthorityInformationAccess
        access = certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    for each in access:
        where = urlsplit(str(each.access_location.value))
        issuers = each.access_method == AuthorityInformationAccessOID.CA_ISSUERS
        if issuers and where.scheme == "http" and where.hostname == ISSUERS:
            try:
                content = _got(f"http://{ISSUERS}", where.path, None, {}, PATIENCE)
                found = x509.load_der_x509_certificate(content)
            except (Silent, ValueError):
                continue
            return found.public_bytes(Encoding.PEM).decode()
    return ""


def _got(
    url: str, path: str, body: str | None, headers: Mapping[str, str], patience: float
) -> bytes:
    """Raises Silent."""
    try:
        where = urlsplit(url)
        line = HTTPConnection(where.hostname or "", where.port or 80, timeout=patience)
        with closing(line):
            line.request("GET" if body is None else "POST", path, body, dict(headers))
            answer = line.getresponse()
            content = answer.read(MOST)
    except (OSError, HTTPException, ValueError) as error:
        raise Silent(f"{url}: {error}") from error
    if answer.status != HTTPStatus.OK:
        raise Silent(f"{url}{path.partition('?')[0]}: answered {answer.status}")
    return content
