"""Locking a backup with a passphrase, and opening it again."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MARK = b"meshfed backup 1\n"
SALT, CHECK, NONCE = 16, 16, 12
HEADER = len(MARK) + SALT + CHECK + NONCE


class Unopenable(Exception):
    """A file that is no backup, or not one that this passphrase opens; one line."""


def locked(plain: bytes, passphrase: str) -> bytes:
    """A backup that only its passphrase opens."""
    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    key, check = derived(passphrase, salt)
    header = MARK + salt + check + nonce
    return header + AESGCM(key).encrypt(nonce, plain, header)


def unlocked(backup: bytes, passphrase: str) -> bytes:
    """What was locked. Raises Unopenable."""
    if not backup.startswith(MARK):
        raise Unopenable("not a backup that this version of meshfed made")
    if len(backup) < HEADER:
        raise Unopenable("the backup is cut off: use another copy")
    header, rest = backup[:HEADER], backup[HEADER:]
    salt, check, nonce = split(header)
    key, expected = derived(passphrase, salt)
    if not bytes_eq(check, expected):
        raise Unopenable("the passphrase does not open this backup")
    try:
        return AESGCM(key).decrypt(nonce, rest, header)
    except InvalidTag as error:
        raise Unopenable("the backup is damaged or cut off: use another copy") from error


def split(header: bytes) -> tuple[bytes, bytes, bytes]:
    rest = header.removeprefix(MARK)
    return rest[:SALT], rest[SALT : SALT + CHECK], rest[SALT + CHECK :]


def derived(passphrase: str, salt: bytes) -> tuple[bytes, bytes]:
    """The key, and what tells a wrong passphrase from a damaged file."""
    # 128 MB and a good part of a second for each guess: what OWASP asks of scrypt.
    both = Scrypt(salt=salt, length=32 + CHECK, n=2**17, r=8, p=1).derive(passphrase.encode())
    return both[:32], both[32:]
