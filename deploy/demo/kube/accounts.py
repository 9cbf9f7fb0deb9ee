"""Tokens of service accounts: JWTs bound to pods, made by TokenRequest, judged by TokenReview.

What is refused is refused in Kubernetes' own words:
https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/serviceaccount/claims.go and jwt.go,
https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/registry/core/serviceaccount/storage/token.go
"""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from meshfed.demo.kube.objects import Object, Refusal, bad_request, invalid
from meshfed.demo.kube.store import Store, Stored

GROUP = "authentication.k8s.io"
API = "https://kubernetes.default.svc"  # the audience of whoever asks the API server itself
ISSUER = API
HOUR = 3600  # seconds, unless somebody asks for another life
SHORTEST, LONGEST = 600, 1 << 32  # seconds
LEEWAY = 60.0  # seconds for which the token of a pod that is being deleted is good
SIDE = 32  # bytes of each half of a signature over P-256 (RFC 7518, 3.4)
PODS, ACCOUNTS = ("", "pods"), ("", "serviceaccounts")
GONE = "service account token has been invalidated"


class Untaken(Exception):
    """A token that is not taken, in the API server's words."""


@dataclass(frozen=True)
class Holder:
    """Whom a token is of, and for which of the audiences that were asked for."""

    namespace: str
    account: str
    uid: str
    audiences: tuple[str, ...]
    extra: dict[str, list[str]] = field(default_factory=dict)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def decoded(part: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


class Mint:
    """Makes tokens and knows its own."""

    def __init__(self, store: Store) -> None:
        self.ahead = 0.0  # seconds that this cluster's clock is ahead: tests need not wait
        self._store = store
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    def requested(self, namespace: str, name: str, asked: Object) -> Object:
        """A TokenRequest and its answer. Raises Refusal."""
        account = self._stored(ACCOUNTS, namespace, name)
        if account is None:
            details = {"name": name, "kind": "serviceaccounts"}
            message = f'serviceaccounts "{name}" not found'
            raise Refusal(404, "NotFound", message, details=details)
        said = asked.get("spec") or {}
        lives = HOUR if said.get("expirationSeconds") is None else said["expirationSeconds"]
        if not isinstance(lives, int) or not SHORTEST <= lives <= LONGEST:
            why = f"Invalid value: {lives}: may not specify a duration less than 10 minutes"
            raise invalid(GROUP, "TokenRequest", name, [("spec.expirationSeconds", why)])
        about: Object = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account.object["metadata"]["uid"]},
        }
        if reference := said.get("boundObjectRef"):
            about["pod"] = self._bound(namespace, name, reference)
        audiences = said.get("audiences") or [API]
        now = int(self.now)
        token = self.signed({
            "aud": audiences, "exp": now + lives, "iat": now, "iss": ISSUER, "jti": str(uuid4()),
            "kubernetes.io": about, "nbf": now, "sub": f"system:serviceaccount:{namespace}:{name}",
        })  # fmt: skip
        until = datetime.fromtimestamp(now + lives, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**said, "audiences": audiences, "expirationSeconds": lives},
            "status": {"token": token, "expirationTimestamp": until},
        }

    def _bound(self, namespace: str, account: str, reference: Object) -> Object:
        """The pod with which a token ends. Raises Refusal."""
        if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod"):
            raise bad_request(f"cannot bind token to object of type {reference.get('kind')}")
        name = reference["name"]
        pod = self._stored(PODS, namespace, name)
        if pod is None:
            raise Refusal(404, "NotFound", f'pods "{name}" not found')
        uid = pod.object["metadata"]["uid"]
        if reference.get("uid", uid) != uid:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match"
            raise Refusal(409, "Conflict", f"{why} the UID in record ({uid})")
        if pod.object["spec"].get("serviceAccountName", "default") != account:
            why = f'cannot bind token for serviceaccount "{account}" to pod running with'
            raise bad_request(f"{why} different serviceaccount name.")
        return {"name": name, "uid": uid}

    def signed(self, claims: Object) -> str:
        header = {"alg": "ES256", "kid": "tests", "typ": "JWT"}
        said = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self._key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{said}.{encoded(r.to_bytes(SIDE, 'big') + s.to_bytes(SIDE, 'big'))}"

    def judged(self, token: str, audiences: Sequence[str] = (API,)) -> Holder:
        """Raises Untaken."""
        claims = self._claims(token)
        common = [each for each in claims["aud"] if each in audiences]
        if not common:
            mine, wanted = (json.dumps(list(each)) for each in (claims["aud"], audiences))
            why = f"token audiences {mine} is invalid for the target audiences {wanted}"
            raise Untaken(why.replace(", ", " "))
        if self.now >= claims["exp"]:
            raise Untaken("service account token has expired")
        if self.now < claims["nbf"] - 1:
            raise Untaken("service account token is not valid yet")
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        self._stands(ACCOUNTS, namespace, account)
        extra = {"credential-id": [f"JTI={claims['jti']}"]}
        if pod := about.get("pod"):
            self._stands(PODS, namespace, pod)
            extra |= {"pod-name": [pod["name"]], "pod-uid": [pod["uid"]]}
        named = {f"authentication.kubernetes.io/{key}": values for key, values in extra.items()}
        return Holder(namespace, account["name"], account["uid"], tuple(common), named)

    def _claims(self, token: str) -> Any:
        """Raises Untaken."""
        try:
            said, _, signature = token.rpartition(".")
            halves = decoded(signature)
            r, s = (int.from_bytes(half, "big") for half in (halves[:SIDE], halves[SIDE:]))
            der = utils.encode_dss_signature(r, s)
            self._key.public_key().verify(der, said.encode(), ec.ECDSA(hashes.SHA256()))
            return json.loads(decoded(said.partition(".")[2]))
        except (ValueError, InvalidSignature) as error:
            raise Untaken("") from error

    def _stands(self, of: tuple[str, str], namespace: str, claimed: Object) -> None:
        """Raises Untaken."""
        stored = self._stored(of, namespace, claimed["name"])
        if stored is None:
            raise Untaken(GONE if of == PODS else f'serviceaccounts "{claimed["name"]}" not found')
        metadata = stored.object["metadata"]
        if metadata["uid"] != claimed["uid"]:
            kind = "pod" if of == PODS else "service account"
            claim = "service account pod ref claim" if of == PODS else "claim"
            why = f"does not match {claim} ({claimed['uid']})"
            raise Untaken(f"{kind} UID ({metadata['uid']}) {why}")
        if deleted := metadata.get("deletionTimestamp"):
            since = datetime.strptime(deleted, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            if since.timestamp() < self.now - LEEWAY:
                raise Untaken(GONE)

    def _stored(self, of: tuple[str, str], namespace: str, name: str) -> Stored | None:
        return self._store.objects[of].get((namespace, name))
