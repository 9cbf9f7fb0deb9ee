"""What a request asks for: its path, its query and its verb."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshfed.demo.kube.kinds import VERBS
from meshfed.demo.kube.objects import Key, NoSuchPath, bad_request, invalid, no_such_resource

SUBRESOURCES = {"namespaces": ("status", "finalize")}
YES = ("true", "1")


@dataclass(frozen=True)
class Target:
    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def resource(self) -> str:
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


@dataclass(frozen=True)
class Asked:
    """Everything that a client may say beside the body."""

    watch: bool = False
    labels: str = ""
    fields: str = ""
    revision: str = ""
    match: str = ""
    limit: int = 0
    proceed: str = ""
    bookmarks: bool = False
    seconds: float = 0
    initial: bool | None = None
    dry_run: bool = False
    manager: str = ""
    force: bool = False
    strict: bool = False


def target(path: str) -> Target:
    """What a path names. Raises Refusal, and NoSuchPath."""
    match path.strip("/").split("/"):
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            raise NoSuchPath
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in SUBRESOURCES["namespaces"]:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise no_such_resource()
    plural, name, subresource = (*rest, "", "")[:3]
    return Target(group, version, plural, namespace, name, subresource)


def verb(method: str, of: Target, asked: Asked) -> str:
    if method == "GET" and asked.watch:
        return "watch"
    verbs = {
        "GET": ("get", "list"),
        "POST": ("create", "create"),
        "PUT": ("update", ""),
        "PATCH": ("patch", ""),
        "DELETE": ("delete", "deletecollection"),
    }
    named, unnamed = verbs.get(method, ("", ""))
    found = named if of.name else unnamed
    if found not in VERBS:
        raise bad_request(f"{method} is not known here")
    return found


def asked(query: Mapping[str, str]) -> Asked:
    """Raises Refusal."""
    said = Asked(
        watch=query.get("watch", "").lower() in YES,
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        revision=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=int(query.get("limit") or 0),
        proceed=query.get("continue", ""),
        bookmarks=query.get("allowWatchBookmarks", "").lower() in YES,
        seconds=float(query.get("timeoutSeconds") or 0),
        initial=query["sendInitialEvents"] in YES if "sendInitialEvents" in query else None,
        dry_run=query.get("dryRun", "") != "",
        manager=query.get("fieldManager", ""),
        force=query.get("force", "").lower() in YES,
        strict=query.get("fieldValidation", "") == "Strict",
    )
    if said.revision and not said.revision.isdigit():
        raise bad_request(f'invalid resource version "{said.revision}"')
    causes = [*_watching(said)] if said.watch else [*_listing(said)]
    if causes:
        raise invalid("meta.k8s.io", "ListOptions", "", causes)
    return said


def _watching(said: Asked) -> list[tuple[str, str]]:
    field = "resourceVersionMatch"
    if said.initial is not None and said.match != "NotOlderThan":
        why = f"sendInitialEvents requires setting {field} to NotOlderThan"
        return [(field, f"Forbidden: {why}")]
    if said.initial is None and said.match:
        why = f"{field} is forbidden for watch unless sendInitialEvents is provided"
        return [(field, f"Forbidden: {why}")]
    return []


def _listing(said: Asked) -> list[tuple[str, str]]:
    field = "resourceVersionMatch"
    if said.initial is not None:
        return [("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")]
    if said.match and said.proceed:
        return [(field, f"Forbidden: {field} is forbidden for continue")]
    if said.match and not said.revision:
        return [(field, f"Forbidden: {field} is forbidden unless resourceVersion is provided")]
    if said.match not in ("", "Exact", "NotOlderThan"):
        return [(field, f'Unsupported value: "{said.match}"')]
    if said.match == "Exact" and said.revision == "0":
        return [(field, f'Forbidden: {field} "exact" is forbidden for resourceVersion "0"')]
    return []
