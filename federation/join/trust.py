"""Whom a machine believes: roots by their hashes, and the control plane by its name."""

from urllib.parse import urlsplit

from cryptography import x509

from meshfed.federation.certificates.authority import uris
from meshfed.federation.join.secret import pin
from meshfed.xds.bootstrap import control_plane_uri


def pins(roots: str) -> frozenset[bytes]:
    """Of each of these roots, in PEM. Raises ValueError."""
    return frozenset(map(pin, x509.load_pem_x509_certificates(roots.encode())))


def control_plane(certificate: bytes, trust_domain: str) -> bool:
    """Whether it is the control plane's, in DER: workloads' lead to the same roots.

    A machine that joins does not know its trust domain yet.
    """
    found = uris(x509.load_der_x509_certificate(certificate))
    if trust_domain:
        return found == (control_plane_uri(trust_domain),)
    return len(found) == 1 and urlsplit(found[0]).path == urlsplit(control_plane_uri("any")).path
