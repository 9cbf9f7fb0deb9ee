"""Who is asking, and whether RBAC lets them: bearer tokens, client certificates, roles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any

from meshfed.demo.kube.accounts import API, GROUP, Mint, Untaken
from meshfed.demo.kube.asked import Target
from meshfed.demo.kube.kinds import RBAC
from meshfed.demo.kube.objects import Object, Refusal, bad_request
from meshfed.demo.kube.store import Store

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
OPEN = ("/healthz", "/livez", "/readyz", "/version")
TOLD_TO_ALL = ("/api", "/apis", "/openapi")


@dataclass(frozen=True)
class User:
    name: str
    groups: frozenset[str] = frozenset()


ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))
ADMIN = User("tests", frozenset({MASTERS, AUTHENTICATED}))


def subject(certificate: Mapping[str, Any]) -> User:
    """Whom a client certificate names: CN is the user, each O a group."""
    said = [pair for rdn in certificate["subject"] for pair in rdn]
    groups = {value for name, value in said if name == "organizationName"}
    names = [value for name, value in said if name == "commonName"]
    return User(names[0], frozenset(groups | {AUTHENTICATED}))


def account(namespace: str, name: str) -> User:
    groups = {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED}
    return User(f"system:serviceaccount:{namespace}:{name}", frozenset(groups))


class Tokens:
    """Those that stand in a file of the server's, and those of service accounts."""

    def __init__(self, mint: Mint) -> None:
        self.mint = mint
        self.users: dict[str, User] = {}

    def issue(self, user: User) -> str:
        token = token_urlsafe(24)
        self.users[token] = user
        return token

    def withdraw(self, token: str) -> None:
        del self.users[token]

    def user(self, header: str, certificate: Mapping[str, Any] | None) -> User:
        """Raises Refusal."""
        if certificate and not header:
            return subject(certificate)
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        if (user := self.users.get(token)) is not None:
            return user
        try:
            holder = self.mint.judged(token)
        except Untaken as untaken:
            raise Refusal(401, "Unauthorized", "Unauthorized") from untaken
        return account(holder.namespace, holder.account)

    def reviewed(self, asked: Object) -> Object:
        """A TokenReview and its answer: 201, also where it says no. Raises Refusal."""
        spec = asked.get("spec") or {}
        if not spec.get("token"):
            raise bad_request("token is required for TokenReview in authentication")
        return {
            "kind": "TokenReview",
            "apiVersion": f"{GROUP}/v1",
            "metadata": {},
            "spec": spec,
            "status": self._verdict(spec["token"], spec.get("audiences") or [API]),
        }

    def _verdict(self, token: str, audiences: Sequence[str]) -> Object:
        if (known := self.users.get(token)) is not None and API in audiences:
            user: Object = {"username": known.name, "groups": sorted(known.groups)}
            return {"authenticated": True, "user": user, "audiences": [API]}
        try:
            holder = self.mint.judged(token, audiences)
        except Untaken as why:
            said = f"[invalid bearer token, {why}]" if str(why) else "invalid bearer token"
            return {"user": {}, "error": said}
        shown = account(holder.namespace, holder.account)
        user = {
            "username": shown.name,
            "uid": holder.uid,
            "groups": sorted(shown.groups),
            "extra": holder.extra,
        }
        return {"authenticated": True, "user": user, "audiences": list(holder.audiences)}


def permit(store: Store, user: User, verb: str, of: Target, within: str) -> None:
    """Whether somebody may do this within a namespace, or everywhere (""). Raises Refusal."""
    if MASTERS in user.groups:
        return
    if any(_allows(rule, verb, of) for rule in _rules(store, user, within)):
        return
    where = f'in the namespace "{within}"' if within else "at the cluster scope"
    resource = f"{of.plural}.{of.group}" if of.group else of.plural
    named = f' "{of.name}"' if of.name else ""
    message = (
        f'{resource}{named} is forbidden: User "{user.name}" cannot {verb} resource '
        f'"{of.resource}" in API group "{of.group}" {where}'
    )
    details = {"group": of.group, "kind": of.plural, "name": of.name}
    raise Refusal(403, "Forbidden", message, details=details)


def permit_path(user: User, path: str) -> None:
    """What is no resource: health for everyone, discovery for whoever is known."""
    allowed = path.startswith(OPEN)
    if AUTHENTICATED in user.groups:
        allowed |= path.startswith(TOLD_TO_ALL) or MASTERS in user.groups
    if not allowed:
        message = f'forbidden: User "{user.name}" cannot get path "{path}"'
        raise Refusal(403, "Forbidden", message)


def _rules(store: Store, user: User, namespace: str) -> Iterator[Object]:
    for binding in _all(store, "clusterrolebindings"):
        if _names(binding, user):
            yield from _role(store, binding, "")
    for binding in _all(store, "rolebindings") if namespace else ():
        if binding["metadata"]["namespace"] == namespace and _names(binding, user):
            yield from _role(store, binding, namespace)


def _all(store: Store, plural: str) -> Iterable[Object]:
    return [each.object for each in store.objects[RBAC, plural].values()]


def _role(store: Store, binding: Object, namespace: str) -> Sequence[Object]:
    reference = binding["roleRef"]
    plural = f"{reference['kind'].lower()}s"
    home = namespace if reference["kind"] == "Role" else ""
    role = store.objects[RBAC, plural].get((home, reference["name"]))
    return (role.object.get("rules") or []) if role else []


def _names(binding: Object, user: User) -> bool:
    for each in binding.get("subjects") or ():
        name = each["name"]
        if each["kind"] == "ServiceAccount":
            name = account(each["namespace"], name).name
        if name == user.name or (each["kind"] == "Group" and name in user.groups):
            return True
    return False


def _allows(rule: Object, verb: str, of: Target) -> bool:
    wanted = (("verbs", verb), ("apiGroups", of.group), ("resources", of.resource))
    names = rule.get("resourceNames") or [of.name]
    return of.name in names and all(
        value in (listed := rule.get(field) or ()) or "*" in listed for field, value in wanted
    )
