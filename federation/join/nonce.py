"""Numbers that are used once: what a machine has attested is of now, and was meant for this mesh.

Any replica knows those of any other, for they share the key that seals the root key.
"""

import hmac
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from hashlib import sha256

LIFE = 300  # seconds
RANDOM, TAG = 4, 16  # bytes; with the time 24 in all, which are 32 characters, as many as may be


class Nonces:
    """Made and known again, and nothing remembered."""

    def __init__(self, secret: bytes = b"") -> None:
        """Without a secret: of this process alone."""
        self._key = sha256(b"meshfed join nonce" + (secret or os.urandom(32))).digest()

    def made(self, now: float) -> str:
        body = int(now).to_bytes(4, "big") + secrets.token_bytes(RANDOM)
        return urlsafe_b64encode(body + self._tag(body)).decode()

    def good(self, nonce: str, now: float) -> bool:
        """Whether it was made here, in the last minutes."""
        try:
            raw = urlsafe_b64decode(nonce)
        except (Error, ValueError):
            return False
        body, tag = raw[:-TAG], raw[-TAG:]
        made_at = int.from_bytes(body[:4], "big")
        return hmac.compare_digest(tag, self._tag(body)) and 0 <= now - made_at <= LIFE

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:TAG]
