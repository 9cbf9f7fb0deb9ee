"""Whose a service account's token is, by what its cluster says: TokenReview.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

import asyncio
import base64
from collections.abc import Mapping

import msgspec

from meshfed.catalog.model import Identity, workload_id
from meshfed.providers.kubernetes.access import Line
from meshfed.providers.kubernetes.messages import Refused, Unreachable, status
from meshfed.providers.kubernetes.pods import identified
from meshfed.providers.provider import Attested, Claimed, Unanswered, Untaken

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
VERSION, KIND = "authentication.k8s.io/v1", "TokenReview"
ACCOUNT = "system:serviceaccount:"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
PATIENCE = 5.0  # seconds for an answer: a sidecar waits for it
AT_ONCE = 32  # reviews: a thousand sidecars may come back together
NO_TOKEN = "not a token of a service account"


class Reference(msgspec.Struct):
    name: str
    uid: str


class About(msgspec.Struct):
    """What a token says it is bound to."""

    namespace: str
    pod: Reference | None = None


class Claims(msgspec.Struct):
    exp: float
    about: About = msgspec.field(name="kubernetes.io")


class User(msgspec.Struct):
    username: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}


class Verdict(msgspec.Struct):
    authenticated: bool = False
    user: User = msgspec.field(default_factory=User)
    audiences: tuple[str, ...] = ()
    error: str = ""


class Review(msgspec.Struct):
    status: Verdict


CLAIMS = msgspec.json.Decoder(Claims)
REVIEW = msgspec.json.Decoder(Review)


def claims(token: str) -> Claims:
    """What a token says of itself, which nobody has verified. Raises Untaken."""
    parts = token.split(".")
    if len(parts) != 3:
        raise Untaken(NO_TOKEN)
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        return CLAIMS.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise Untaken(NO_TOKEN) from error


def claimed(said: Claims, provider: str) -> Claimed:
    """The pod's workload that a token names. Raises Untaken."""
    if (pod := said.about.pod) is None:
        raise Untaken("a token that is not bound to a pod: mount a projected one")
    id_ = pod_id(provider, pod.uid, pod.name, said.about.namespace)
    return Claimed(id_, f"{pod.name}.{said.about.namespace}")


def pod_id(provider: str, uid: str, name: str, namespace: str) -> str:
    """As `resolve` makes it."""
    return workload_id(provider, uid, f"{name}.{namespace}")


def holder(verdict: Verdict, provider: str, audience: str) -> tuple[str, Identity]:
    """Which workload it is of, and as whom that runs. Raises Untaken.

    An API server that knows nothing of audiences says none: then the token may be anybody's.
    """
    if not verdict.authenticated:
        raise Untaken(" ".join(verdict.error.split()) or "the cluster does not know it")
    if audience not in verdict.audiences:
        raise Untaken(f"not for the audience {audience}")
    namespace, colon, account = verdict.user.username.removeprefix(ACCOUNT).partition(":")
    if not (verdict.user.username.startswith(ACCOUNT) and colon):
        raise Untaken(f"of {verdict.user.username}, which is no service account")
    name, uid = (_one(verdict.user.extra.get(key, ())) for key in (POD_NAME, POD_UID))
    if not (name and uid):
        raise Untaken("the cluster does not say of which pod it is")
    return pod_id(provider, uid, name, namespace), identified(account, namespace)


def _one(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else ""


class Reviewer:
    """Asks one cluster; its provider's name is a part of what the catalog calls its pods."""

    def __init__(self, provider: str, api: Line) -> None:
        self._provider = provider
        self._api = api
        self._turns = asyncio.Semaphore(AT_ONCE)

    def claimed(self, token: str) -> Claimed:
        return claimed(claims(token), self._provider)

    async def attest(self, token: str, audience: str) -> Attested:
        """Raises Untaken and Unanswered."""
        said = claims(token)
        try:
            async with asyncio.timeout(PATIENCE), self._turns:
                verdict = await self._reviewed(token, audience)
        except TimeoutError as error:
            raise Unanswered(f"no answer in {PATIENCE:.0f} s") from error
        except (Unreachable, Refused, msgspec.DecodeError) as error:
            raise Unanswered(str(error)) from error
        try:
            return Attested(*holder(verdict, self._provider, audience), said.exp)
        except ValueError as error:  # a name that no identity can have
            raise Untaken(str(error)) from error

    async def _reviewed(self, token: str, audience: str) -> Verdict:
        """Raises Unreachable, Refused and msgspec.DecodeError."""
        spec = {"token": token, "audiences": [audience]}
        asked = {"apiVersion": VERSION, "kind": KIND, "spec": spec}
        async with self._api.post(PATH, asked) as answer:
            body = await answer.read()
        if answer.status not in (200, 201):
            raise Refused(answer.status, status(body).message)
        return REVIEW.decode(body).status

    async def close(self) -> None:
        await self._api.close()
