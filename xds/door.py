"""Who comes to which door: by the certificate of its connection, or by the token of its call."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from meshfed.xds.peer import Names, names

HEADER, SCHEME = "authorization", "bearer "
LONGEST = 8 * 1024  # bytes of a token; grpc refuses calls with more than 16 KiB of metadata


class Unproven(Exception):
    """This peer has not shown who it is; the message says what was wrong with what it showed."""


class Bearers(Protocol):
    """Whoever knows whose a token is."""

    async def names(self, token: str, address: str) -> Names:
        """The names that a certificate for its holder would have.

        Raises Unproven, Refusal and Unready. `address`: where the call comes from, for logs.
        """
        ...

    def strange(self, unproven: Unproven, address: str) -> None:
        """A call came without anything that could be a token."""
        ...


class Call(Protocol):
    """What we use of grpc.aio's context; its library ships no types."""

    async def read(self) -> bytes | object: ...
    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str]]) -> None: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: object, details: str) -> None: ...
    def peer(self) -> str: ...
    def auth_context(self) -> Mapping[str, list[bytes]]: ...
    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def shown(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The one bearer token (RFC 6750, 2.1). Raises Unproven."""
    found = [value for key, value in metadata if key == HEADER]
    if not found:
        raise Unproven("no token: show that of the pod's service account")
    if len(found) > 1:
        raise Unproven("more than one token")
    [said] = found
    if not isinstance(said, str) or said[: len(SCHEME)].lower() != SCHEME:
        raise Unproven("authorization: not a bearer token")
    token = said[len(SCHEME) :].strip()
    if len(token) > LONGEST:
        raise Unproven(f"a token of {len(token)} bytes: more than {LONGEST}")
    return token


async def proven(call: Call, bearers: Bearers | None) -> Names:
    """Who this is. Where certificates are asked for, nobody gets as far as here without one.

    Raises Unproven, Refusal and Unready.
    """
    certificate = call.auth_context().get("x509_pem_cert", [b""])[0]
    if certificate or bearers is None:
        return names(certificate)
    try:
        token = shown(call.invocation_metadata() or ())
    except Unproven as unproven:
        bearers.strange(unproven, call.peer())
        raise
    return await bearers.names(token, call.peer())
