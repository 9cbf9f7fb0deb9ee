"""Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch."""

from copy import deepcopy
from typing import Any

from kube.objects import Refusal

# What lists of maps are merged by (the field's patchMergeKey); others are replaced.
MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "env": "name",
    "volumes": "name", "volumeMounts": "mountPath", "imagePullSecrets": "name",
    "hostAliases": "ip", "conditions": "type", "ownerReferences": "uid", "secrets": "name",
    "webhooks": "name", "addresses": "type", "podIPs": "ip", "taints": "key",
    "topologySpreadConstraints": "topologyKey",
}  # fmt: skip


def merged(thing: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(thing) if isinstance(thing, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def strategic(thing: Any, patch: Any, field: str = "") -> Any:
    if isinstance(patch, list):
        return _listed(thing or [], patch, field)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = dict(thing) if isinstance(thing, dict) else {}
    for name in patch.get("$retainKeys", []) and [*result]:
        if name not in patch["$retainKeys"]:
            del result[name]
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            name = name.partition("/")[2]
            result[name] = [each for each in result.get(name, []) if each not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = strategic(result.get(name), value, name)
    return result


def _listed(known: list[Any], patch: list[Any], field: str) -> list[Any]:
    by = _key(field, patch)
    if field == "finalizers":
        return [*known, *(each for each in patch if each not in known)]
    if by is None or {"$patch": "replace"} in patch:
        return [each for each in patch if each != {"$patch": "replace"}]
    result = list(known)
    for each in patch:
        at = next((n for n, one in enumerate(result) if one.get(by) == each.get(by)), None)
        if each.get("$patch") == "delete":
            result = [one for one in result if one.get(by) != each.get(by)]
        elif at is None:
            result.append(strategic({}, each))
        else:
            result[at] = strategic(result[at], each)
    return result


def _key(field: str, patch: list[Any]) -> str | None:
    if not all(isinstance(each, dict) for each in patch):
        return None
    if field == "ports":
        return "containerPort" if any("containerPort" in each for each in patch) else "port"
    return MERGE_KEYS.get(field)


def operated(thing: Any, operations: Any) -> Any:
    """A JSON patch. Raises Refusal."""
    result = deepcopy(thing)
    if not isinstance(operations, list):
        raise Refusal(400, "BadRequest", "a JSON patch is a list of operations")
    for each in operations:
        try:
            result = _operated(result, each)
        except (LookupError, ValueError, TypeError) as error:
            why = f"the server rejected our request due to an error in our request: {error}"
            raise Refusal(422, "Invalid", why) from error
    return result


def _operated(thing: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "test":
            if _at(thing, path) != operation["value"]:
                raise ValueError(f"testing value {operation['path']} failed")
            return thing
        case "add":
            return _put(thing, path, operation["value"], new=True)
        case "replace":
            _at(thing, path)
            return _put(thing, path, operation["value"], new=False)
        case "remove":
            return _taken(thing, path)
        case "copy":
            return _put(thing, path, deepcopy(_at(thing, _pointer(operation["from"]))), new=True)
        case "move":
            source = _pointer(operation["from"])
            value = _at(thing, source)
            return _put(_taken(thing, source), path, value, new=True)
        case other:
            raise ValueError(f"unknown operation {other!r}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [each.replace("~1", "/").replace("~0", "~") for each in text.split("/")[1:]]


def _at(thing: Any, path: list[str]) -> Any:
    for name in path:
        thing = thing[int(name)] if isinstance(thing, list) else thing[name]
    return thing


def _put(thing: Any, path: list[str], value: Any, *, new: bool) -> Any:
    if not path:
        return value
    parent, name = _at(thing, path[:-1]), path[-1]
    if not isinstance(parent, list):
        parent[name] = value
    elif name == "-":
        parent.append(value)
    elif new and 0 <= int(name) <= len(parent):
        parent.insert(int(name), value)
    else:
        parent[int(name)] = value
    return thing


def _taken(thing: Any, path: list[str]) -> Any:
    parent, name = _at(thing, path[:-1]), path[-1]
    del parent[int(name) if isinstance(parent, list) else name]
    return thing
