"""Who is at the other end of a stream."""

from dataclasses import dataclass

from cryptography import x509


@dataclass(frozen=True, slots=True)
class Names:
    """Who somebody has proven to be, and for how long that holds; seconds since the epoch."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    not_after: float | None = None
    not_before: float | None = None


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
    not_before: float | None = None


def met(who: Names, node_id: str, envoy_version: str, address: str) -> Peer:
    return Peer(who.uris, who.dns, who.not_after, node_id, envoy_version, address, who.not_before)


def names(pem: bytes) -> Names:
    """The names and the life of a certificate; nothing of what is not there."""
    if not pem:
        return Names()
    certificate = x509.load_pem_x509_certificate(pem)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Names(*_names(certificate), ends.timestamp(), begins.timestamp())


def _names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), ()
    uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), tuple(extension.value.get_values_for_type(x509.DNSName))
