"""Who owns which field: managedFields, and server-side apply by it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.lists import SET, Keyed, Names, keyed, mark
from meshfed.demo.kube.objects import Object, Refusal, encode, now

Path = tuple[str, ...]  # as in fieldsV1: "f:spec", 'k:{"name":"a"}', 'v:"x"', "."
Leaves = dict[Path, Any]
NOBODYS = {"apiVersion", "kind"}
SERVERS = {
    "name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation",
    "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
    "generateName",
}  # fmt: skip


@dataclass(frozen=True)
class Owner:
    manager: str
    operation: str  # Apply or Update
    version: str
    subresource: str
    paths: frozenset[Path]
    time: str = field(default="", compare=False)

    def same(self, other: "Owner") -> bool:
        mine = self.manager, self.operation, self.version, self.subresource
        return mine == (other.manager, other.operation, other.version, other.subresource)


def leaves(thing: Object, kind: Kind) -> Leaves:
    """Every field of an object that somebody can own, with its value."""
    shown = {name: value for name, value in thing.items() if name not in NOBODYS}
    metadata = thing.get("metadata") or {}
    shown["metadata"] = {name: each for name, each in metadata.items() if name not in SERVERS}
    if not shown["metadata"]:
        del shown["metadata"]
    return dict(_leaves(shown, keyed(kind), (), ()))


def _leaves(value: Any, by: Keyed, names: Names, at: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _leaves(each, by, (*names, name), (*at, f"f:{name}"))
    elif isinstance(value, list) and value and (keys := by(names)):
        for each in value:
            if keys == SET:
                yield (*at, f"v:{encode(each).decode()}"), each
                continue
            step = f"k:{encode(mark(each, keys)).decode()}"
            yield (*at, step, "."), None
            yield from _leaves(each, by, names, (*at, step))
    else:
        yield at, value


def owners(thing: Object) -> tuple[Owner, ...]:
    return tuple(
        Owner(
            each["manager"],
            each["operation"],
            each["apiVersion"],
            each.get("subresource", ""),
            frozenset(_paths(each["fieldsV1"])),
            each["time"],
        )
        for each in thing.get("metadata", {}).get("managedFields") or ()
    )


def _paths(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    if not fields:
        yield at
    for step, below in fields.items():
        yield from _paths(below, (*at, step))


def written(all_of_them: tuple[Owner, ...]) -> list[Object]:
    shown = []
    for owner in sorted(all_of_them, key=lambda each: (each.operation, each.manager)):
        fields: Object = {}
        for path in sorted(owner.paths):
            below = fields
            for step in path:
                below = below.setdefault(step, {})
        entry = {
            "manager": owner.manager, "operation": owner.operation, "apiVersion": owner.version,
            "time": owner.time or now(), "fieldsType": "FieldsV1", "fieldsV1": fields,
        }  # fmt: skip
        if owner.subresource:
            entry["subresource"] = owner.subresource
        shown.append(entry)
    return shown


def after_update(
    kind: Kind, before: Object | None, thing: Object, manager: str, subresource: str
) -> list[Object]:
    """Who owns what once a manager wrote a whole object: what it changed is its own."""
    old, new = leaves(before or {}, kind), leaves(thing, kind)
    changed = frozenset(path for path in new if path not in old or old[path] != new[path])
    known = owners(before or {})
    mine = Owner(manager, "Update", kind.api_version, subresource, changed)
    kept = [
        replace(each, paths=each.paths & new.keys() - (frozenset() if each.same(mine) else changed))
        for each in known
    ]
    return written(_with(kept, mine))


def _with(kept: list[Owner], mine: Owner) -> tuple[Owner, ...]:
    """The others, and mine: one entry, younger only if it owns more than before."""
    before = next((each for each in kept if each.same(mine)), None)
    paths = mine.paths | (before.paths if before else frozenset())
    time = before.time if before and before.paths == paths else ""
    others = [each for each in kept if not each.same(mine) and each.paths]
    return tuple(others) + ((replace(mine, paths=paths, time=time),) if paths else ())


def applied(
    kind: Kind, before: Object, wanted: Object, manager: str, subresource: str, *, force: bool
) -> tuple[Object, list[Object]]:
    """An object after an apply, and who then owns what. Raises Refusal."""
    live, meant = leaves(before, kind), leaves(wanted, kind)
    mine = Owner(manager, "Apply", kind.api_version, subresource, frozenset(meant))
    known = owners(before)
    taken = {
        path: owner
        for owner in known
        for path in owner.paths & meant.keys()
        if not owner.same(mine) and path in live and live[path] != meant[path]
    }
    if taken and not force:
        raise conflicts(taken)
    previous = next((each.paths for each in known if each.same(mine)), frozenset())
    others = [
        replace(each, paths=each.paths - taken.keys()) for each in known if not each.same(mine)
    ]
    thing = _merged(before, wanted, keyed(kind), ())
    owned = frozenset[Path]().union(*(each.paths for each in others))
    for path in sorted(previous - meant.keys() - owned, key=len):
        _remove(thing, path)
    time = next((each.time for each in known if each == mine), "")
    left = tuple(each for each in others if each.paths)
    return thing, written((*left, replace(mine, time=time)))


def conflicts(taken: Mapping[Path, Owner]) -> Refusal:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner.manager}"'
            + (f" using {owner.version}" if owner.operation == "Update" else ""),
            "field": "".join(map(_shown, path)),
        }
        for path, owner in sorted(taken.items())
    ]
    said = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "conflict" if len(causes) == 1 else "conflicts"
    message = f"Apply failed with {len(causes)} {plural}: {said}"
    return Refusal(409, "Conflict", message, details={"causes": causes})


def _shown(step: str) -> str:
    return f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]"


def _merged(thing: Any, wanted: Any, by: Keyed, names: Names) -> Any:
    if isinstance(wanted, dict) and isinstance(thing, dict):
        result = dict(thing)
        for name, value in wanted.items():
            result[name] = _merged(thing.get(name), value, by, (*names, name))
        return result
    keys = by(names) if isinstance(wanted, list) and isinstance(thing, list) else ()
    if keys == SET:
        return [*thing, *(each for each in wanted if each not in thing)]
    if not keys:
        return wanted
    result_list = list(thing)
    marks = [mark(each, keys) for each in thing]
    for each in wanted:
        if mark(each, keys) in marks:
            at = marks.index(mark(each, keys))
            result_list[at] = _merged(thing[at], each, by, names)
        else:
            result_list.append(each)
    return result_list


def _remove(thing: Any, path: Path) -> None:
    """Takes a field or an item out, where it still is."""
    *way, last = path
    if last == ".":
        *way, last = way
    for step in way:
        thing = _step(thing, step)
        if thing is None:
            return
    if last.startswith("f:"):
        thing.pop(last[2:], None)
    elif (item := _step(thing, last)) is not None:
        thing.remove(item)


def _step(thing: Any, step: str) -> Any:
    name = step[2:]
    if step.startswith("f:"):
        return thing.get(name)
    wanted = json.loads(name)
    if step.startswith("v:"):
        return wanted if wanted in thing else None
    return next((each for each in thing if mark(each, tuple(wanted)) == wanted), None)
