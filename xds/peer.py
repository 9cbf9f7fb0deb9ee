"""Who is at the other end of a stream."""

from dataclasses import dataclass

from cryptography import x509

Names = tuple[tuple[str, ...], tuple[str, ...], float | None]  # URIs, DNS names, until when


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: the names are proven, the rest is its own word.

    Whoever came with a certificate has the names in there; of a token, those that a certificate for
    its holder would have.
    """

    uris: tuple[str, ...]
    dns: tuple[str, ...]
    not_after: float | None  # seconds since the epoch
    node_id: str
    envoy_version: str
    address: str


def names(pem: bytes) -> Names:
    """URIs, DNS names and the end of a certificate; nothing of what is not there."""
    if not pem:
        return (), (), None
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), (), certificate.not_valid_after_utc.timestamp()
    uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    dns = extension.value.get_values_for_type(x509.DNSName)
    return tuple(uris), tuple(dns), certificate.not_valid_after_utc.timestamp()
