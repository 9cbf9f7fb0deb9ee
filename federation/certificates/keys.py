"""The key that seals the root key at rest: where it comes from, and what it opens."""

import base64
import binascii
import os
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "MESHFED_KEY"
SIZE = 32  # AES-256
NONCE = 12
MARK = b"mf1"  # a sealed secret, first format
REMEDY = f"put the former key back (file or {VARIABLE}), or `meshfed restore` a backup"


class Unsealable(Exception):
    """A sealed secret cannot be opened, or not safely; one line, with what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key itself, and where it was found."""

    secret: bytes = field(repr=False)
    origin: str

    @property
    def id(self) -> bytes:
        """Tells keys apart without telling them: it stands in the clear beside what it sealed."""
        return sha256(b"meshfed key id" + self.secret).digest()[:4]


def parse(text: str, origin: str) -> Key:
    """A key as it is written in a file or a variable. Raises Unsealable."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != SIZE:
        raise Unsealable(
            f"{origin}: not {SIZE} bytes in base64: make a key with `openssl rand -base64 {SIZE}`"
        )
    return Key(secret, origin)


def written(key: Key) -> str:
    return base64.b64encode(key.secret).decode() + "\n"


def seal(plain: bytes, key: Key) -> bytes:
    nonce = os.urandom(NONCE)
    header = MARK + key.id
    return header + nonce + AESGCM(key.secret).encrypt(nonce, plain, header)


def unseal(sealed: bytes, key: Key) -> bytes:
    """What `seal` sealed with this key. Raises Unsealable."""
    header, rest = sealed[: len(MARK) + 4], sealed[len(MARK) + 4 :]
    if not header.startswith(MARK):
        raise Unsealable("the catalog's root key is not sealed by meshfed: restore a backup")
    if header.removeprefix(MARK) != key.id:
        other = header.removeprefix(MARK).hex()
        raise Unsealable(
            f"{key.origin}: key {key.id.hex()} does not open what key {other} sealed: {REMEDY}"
        )
    try:
        return AESGCM(key.secret).decrypt(rest[:NONCE], rest[NONCE:], header)
    except (InvalidTag, ValueError) as error:
        raise Unsealable("the catalog's sealed root key is damaged: restore a backup") from error


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals with the key from the environment, else from a file that is made when first needed."""

    path: Path
    variable: str = field(default="", repr=False)  # what MESHFED_KEY says; it goes before the file

    def close(self, plain: bytes) -> bytes:
        """Seal a secret; the key file is made if there is no key yet. Raises Unsealable."""
        return seal(plain, self.key() or keep(Key(os.urandom(SIZE), str(self.path)), self.path))

    def open(self, sealed: bytes) -> bytes:
        """Open a secret. A key made now could not: a lost one is missed. Raises Unsealable."""
        key = self.key()
        if key is None:
            raise Unsealable(f"{self.path}: the key that opens the root key is missing: {REMEDY}")
        return unseal(sealed, key)

    def key(self) -> Key | None:
        """The key there is. Raises Unsealable when there is one that must not be used."""
        return parse(self.variable, VARIABLE) if self.variable else read(self.path)


def read(path: Path) -> Key | None:
    try:
        with path.open(encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Unsealable(f"{path}: others may read this key: chmod 600 {path}")
            return parse(file.read(), str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Unsealable(f"{path}: cannot be read as a key: {error}") from error


def keep(key: Key, path: Path) -> Key:
    """Write a key file, whole or not at all; a file that stands wins. Raises Unsealable."""
    try:
        handle, draft = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(written(key))
                file.flush()
                os.fsync(handle)  # what it seals is committed next, and must not outlive it
            with suppress(FileExistsError):
                path.hardlink_to(draft)  # unlike a rename, never over a key that stands
        finally:
            Path(draft).unlink()
    except OSError as error:
        why = f"{error.strerror}: make it writable or set {VARIABLE}"
        raise Unsealable(f"{path}: a key cannot be written there: {why}") from error
    return read(path) or key
