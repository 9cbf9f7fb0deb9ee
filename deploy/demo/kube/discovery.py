"""What an API server says of itself: groups, resources, OpenAPI, version."""

from collections.abc import Iterable
from typing import Any

from meshfed.demo.kube.kinds import VERBS, Kind
from meshfed.demo.kube.objects import NoSuchPath, Object
from meshfed.demo.kube.store import Store

VERSION = {
    "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "tests",
    "gitTreeState": "clean", "buildDate": "2025-01-01T00:00:00Z", "goVersion": "go1.24",
    "compiler": "gc", "platform": "linux/amd64",
}  # fmt: skip
QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")  # kubectl looks for them


def discovered(store: Store, path: str) -> Object:
    """Raises NoSuchPath."""
    kinds = store.kinds.values()
    match path.strip("/").split("/"):
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(kinds)}
        case ["apis", group]:
            for each in groups(kinds):
                if each["name"] == group:
                    return {"kind": "APIGroup", "apiVersion": "v1", **each}
        case ["api", version]:
            return resources(kinds, "", version)
        case ["apis", group, version]:
            return resources(kinds, group, version)
        case ["openapi", "v3"]:
            paths = {_root(kind) for kind in kinds}
            urls = {each: {"serverRelativeURL": f"/openapi/v3/{each}?hash=0"} for each in paths}
            return {"paths": urls}
        case ["openapi", "v3", *root]:
            return openapi([kind for kind in kinds if _root(kind) == "/".join(root)])
    raise NoSuchPath


def _root(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def groups(kinds: Iterable[Kind]) -> list[Object]:
    versions: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.group and kind.version not in versions.setdefault(kind.group, []):
            versions[kind.group].append(kind.version)
    listed = []
    for name, of_it in versions.items():
        shown = [{"groupVersion": f"{name}/{v}", "version": v} for v in _newest_first(of_it)]
        listed.append({"name": name, "versions": shown, "preferredVersion": shown[0]})
    return listed


def _newest_first(versions: list[str]) -> list[str]:
    """Stable before beta before alpha, then by number, as Kubernetes prefers them."""

    def rank(version: str) -> tuple[bool, bool, str]:
        return "alpha" not in version, "beta" not in version, version

    return sorted(versions, key=rank, reverse=True)


def resources(kinds: Iterable[Kind], group: str, version: str) -> Object:
    """Raises NoSuchPath."""
    listed: list[Object] = []
    for kind in kinds:
        if (kind.group, kind.version) != (group, version):
            continue
        one = {"namespaced": kind.namespaced, "kind": kind.name}
        listed.append({
            "name": kind.plural, "singularName": kind.name.lower(), **one, "verbs": VERBS,
            "shortNames": list(kind.short),
        })  # fmt: skip
        if kind.status:
            verbs = ["get", "patch", "update"]
            listed.append(
                {"name": f"{kind.plural}/status", "singularName": "", **one, "verbs": verbs}
            )
    if not listed:
        raise NoSuchPath
    return {
        "kind": "APIResourceList", "apiVersion": "v1", "resources": listed,
        "groupVersion": f"{group}/{version}" if group else version,
    }  # fmt: skip


def openapi(kinds: Iterable[Kind]) -> Object:
    """As much as kubectl needs to leave validation to the server."""
    paths: dict[str, Any] = {}
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in QUERY]
    for kind in kinds:
        home = "/namespaces/{namespace}" if kind.namespaced else ""
        path = f"/{_root(kind)}{home}/{kind.plural}"
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.name}
        said = {"parameters": query, "responses": {}, "x-kubernetes-group-version-kind": gvk}
        paths[path] = {"post": {"x-kubernetes-action": "post", **said}}
        paths[path + "/{name}"] = {
            verb: {"x-kubernetes-action": verb, **said} for verb in ("patch", "put")
        }
    info = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
