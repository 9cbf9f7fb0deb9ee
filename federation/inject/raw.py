"""Kubernetes objects as they were written: plain data, of which every field is kept."""

from meshfed.catalog.model import Rejected

Object = dict[str, object]
Path = tuple[str | int, ...]
Operation = dict[str, object]


class Unfit(Exception):
    """Something in an object is not what it must be; `path` is from the pod's root."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(why)
        self.path = path
        self.why = why

    def rejected(self, where: str) -> Rejected:
        field = "".join(map(_step, self.path))
        return Rejected(where, field.removeprefix("."), self.why)


def _step(part: str | int) -> str:
    """An index, or a key that has dots of its own, stands in brackets."""
    return f"[{part}]" if isinstance(part, int) or "." in part or "/" in part else f".{part}"


def mapping(of: Object, key: str, at: Path = ()) -> Object:
    """What stands there, or nothing; null is nothing. Raises Unfit."""
    found = of.get(key)
    if found is None:
        return {}
    return entry(found, (*at, key))


def entry(found: object, at: Path) -> Object:
    """Raises Unfit."""
    if not isinstance(found, dict):
        raise Unfit(at, f"must be a mapping, not {noun(found)}")
    for key in found:
        if not isinstance(key, str):
            raise Unfit(at, f"the key {key!r} must be text: put it in quotes")
    return found


def entries(of: Object, key: str, at: Path = ()) -> list[Object]:
    """Raises Unfit."""
    found = of.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Unfit((*at, key), f"must be a list, not {noun(found)}")
    return [entry(each, (*at, key, n)) for n, each in enumerate(found)]


def words(of: Object, key: str, at: Path = ()) -> dict[str, str]:
    """Labels or annotations. Raises Unfit."""
    found = mapping(of, key, at)
    for name, value in found.items():
        if not isinstance(value, str):
            why = f"must be text, not {noun(value)}: put it in quotes"
            raise Unfit((*at, key, name), why)
    return {name: str(value) for name, value in found.items()}


def word(of: Object, key: str, at: Path = ()) -> str:
    """Raises Unfit."""
    found = of.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Unfit((*at, key), f"must be text, not {noun(found)}")
    return found


def noun(found: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number"}
    return names.get(type(found), "a number" if isinstance(found, float) else repr(found))
