"""Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch."""

from copy import deepcopy
from typing import Any

from meshfed.demo.kube.lists import SET, Keyed, Names
from meshfed.demo.kube.objects import Refusal


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


def strategic(thing: Any, patch: Any, by: Keyed, names: Names = ()) -> Any:
    if isinstance(patch, list):
        return _listed(thing or [], patch, by, names)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = dict(thing) if isinstance(thing, dict) else {}
    if "$retainKeys" in patch:
        result = {name: each for name, each in result.items() if name in patch["$retainKeys"]}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            name = name.partition("/")[2]
            result[name] = [each for each in result.get(name, []) if each not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = strategic(result.get(name), value, by, (*names, name))
    return result


def _listed(known: list[Any], patch: list[Any], by: Keyed, names: Names) -> list[Any]:
    keys = by(names)
    if keys == SET:
        return [*known, *(each for each in patch if each not in known)]
    if not keys or {"$patch": "replace"} in patch:
        return [each for each in patch if each != {"$patch": "replace"}]
    key = keys[0]
    result = list(known)
    for each in patch:
        at = next((n for n, one in enumerate(result) if one.get(key) == each.get(key)), None)
        if each.get("$patch") == "delete":
            result = [one for one in result if one.get(key) != each.get(key)]
        elif at is None:
            result.append(strategic({}, each, by, names))
        else:
            result[at] = strategic(result[at], each, by, names)
    return result


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
