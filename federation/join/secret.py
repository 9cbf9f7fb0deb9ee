"""A join token as people carry it: which one, its secret, and whom its bearer may trust."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

MARK = "mesh1"  # the first format
SIZE = 32  # bytes of a secret, and of a pin
ID = 4  # bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """What stands in a token; the catalog knows `hash` instead of `secret`."""

    id: str
    secret: bytes = field(repr=False)
    pin: bytes  # SHA-256 of a root of the mesh

    @classmethod
    def made(cls, pin: bytes) -> Self:
        return cls(secrets.token_hex(ID), secrets.token_bytes(SIZE), pin)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, which does not repeat it."""
        mark, *parts = text.strip().split(".")
        if mark != MARK or len(parts) != 3:
            raise ValueError(f"not a join token: those begin with {MARK}. and have four parts")
        try:
            id_, secret, pin = parts[0], _bytes(parts[1]), _bytes(parts[2])
            sound = len(bytes.fromhex(id_)) == ID and len(secret) == len(pin) == SIZE
        except (Error, ValueError) as error:
            raise ValueError("not a whole join token: copy it again") from error
        if not sound or not id_.isascii():
            raise ValueError("not a whole join token: copy it again")
        return cls(id_, secret, pin)

    @property
    def hash(self) -> str:
        """Hex. A secret of 256 random bits needs no salt, and no slow hash: nobody guesses it."""
        return sha256(self.secret).hexdigest()

    @property
    def text(self) -> str:
        return ".".join((MARK, self.id, _text(self.secret), _text(self.pin)))


def pin(root: x509.Certificate) -> bytes:
    return root.fingerprint(SHA256())


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
