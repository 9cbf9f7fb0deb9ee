"""What a machine asks for; nothing that it says of itself is believed yet.

Fields that begin with `untrusted_` are the machine's own word.
"""

from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from meshfed.federation.certificates.authority import CURVES

# Each comes from some request that is not well-formed ASN.1, or not a request.
MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


Reason = Annotated[StrictStr, Field(max_length=200, pattern=r"^[ -~]*$")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class Refused(Exception):
    """A machine is not let in: the status, why, and the name that it gave."""

    def __init__(self, status: int, why: str, name: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.name = name


class Asked(BaseModel):
    """What a machine asks with: its key's request, and what it proves itself with."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    csr: Annotated[StrictStr, Field(max_length=4096)] = Field(
        description="PKCS#10 in PEM, for an ECDSA key; it claims no name"
    )
    token: Annotated[StrictStr, Field(max_length=256)] = Field(
        "", description="not needed with a client certificate of this mesh"
    )
    document: Annotated[StrictStr, Field(max_length=9000)] = Field(
        "", description="what Azure attests of the machine, with a nonce of this server: base64"
    )
    untrusted_chain: Annotated[StrictStr, Field(max_length=9000)] = Field(
        "", description="PEM: certificates between the document's signer and a root"
    )
    untrusted_name: Annotated[StrictStr, Field(max_length=253)] = ""
    untrusted_addresses: Annotated[list[StrictStr], Field(max_length=16)] = Field(
        [], description="where it is called; empty: where the request came from"
    )
    untrusted_interception: Literal["explicit", "transparent"] = Field(
        "explicit", description="how its traffic gets into its sidecar, which is its own affair"
    )


class Report(BaseModel):
    """What an agent says of its machine; nothing in it: all is well."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    untrusted_draining: Reason = Field("", description="why it should get no new calls")
    untrusted_lost: Reason = Field("", description="why nothing there can be called")
    untrusted_failing: Annotated[dict[PortNumber, Reason], Field(max_length=64)] = Field(
        {}, description="ports of applications that are not well, and why"
    )


def signing_request(pem: str) -> x509.CertificateSigningRequest:
    """A request that proves a key and claims nothing. Raises Refused."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        named = bool(csr.subject.rdns) or len(csr.attributes) > 0
        key, proven = csr.public_key(), csr.is_signature_valid
    except MALFORMED as error:
        raise Refused(400, "csr: not a PKCS#10 request in PEM") from error
    # An issuer ignores such names. One that asks for them takes the mesh for something else.
    if named:
        why = "csr: asks for names or extensions of its own: it must have no subject and none"
        raise Refused(403, why)
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES)):
        raise Refused(400, "csr: the key is not ECDSA on P-256, P-384 or P-521")
    if not proven:
        raise Refused(400, "csr: not signed with its own key")
    return csr
