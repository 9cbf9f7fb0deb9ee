"""Whom a machine believes: roots by their hashes, and the control plane by its name."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from meshfed.federation.certificates.authority import uris
from meshfed.federation.join.secret import pin
from meshfed.xds.bootstrap import control_plane_uri


def pins(roots: str) -> frozenset[bytes]:
    """Of each of these roots, in PEM. Raises ValueError."""
    return frozenset(map(pin, x509.load_pem_x509_certificates(roots.encode())))


def issued(certificate: bytes, root: str, now: float) -> bool:
    """Whether it is of this root (PEM) itself, and valid now, as RFC 5280 has it.

    Its bearer has its key, whoever that is: TLS 1.3 shakes no hands otherwise.
    """
    store = Store([x509.load_pem_x509_certificate(root.encode())])
    verifier = PolicyBuilder().store(store).time(datetime.fromtimestamp(now, UTC))
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        verifier.build_client_verifier().verify(leaf, [])
    except (VerificationError, ValueError):
        return False
    return True


def control_plane(certificate: bytes, trust_domain: str) -> bool:
    """Whether it is the control plane's, in DER: workloads' lead to the same roots.

    A machine that joins does not know its trust domain yet.
    """
    found = uris(x509.load_der_x509_certificate(certificate))
    if trust_domain:
        return found == (control_plane_uri(trust_domain),)
    return len(found) == 1 and urlsplit(found[0]).path == urlsplit(control_plane_uri("any")).path
