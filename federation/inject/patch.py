"""What injection does to a pod: a JSON patch (RFC 6902), made by hand.

Nobody's types stand between: a field that this version does not know stays where it is.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

from meshfed.federation.capture import USER
from meshfed.federation.inject.containers import init, proxy, token
from meshfed.federation.inject.decide import INTERCEPTION, TOKEN, Left, Namespace, left
from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.probes import pointer, rewritten
from meshfed.federation.inject.raw import Object, Operation, Unfit, entries, mapping, words
from meshfed.federation.inject.wishes import Wishes, wishes

INJECTED = "meshfed.io/injected"  # a label, so that pods without can be asked for


@dataclass(frozen=True, slots=True)
class Patched:
    """What becomes of a pod: nothing, with the reason, or these changes."""

    changes: tuple[Operation, ...] = ()
    left: Left | None = None
    warnings: tuple[str, ...] = ()


def patched(
    pod: Object, namespace: Namespace | None, injection: Injection, roots: str, own: str = ""
) -> Patched:
    """Raises Unfit. `roots`: the certificates (PEM) by which pods know the control plane."""
    found = left(pod, namespace, injection, own)
    if found:
        return Patched(left=found, warnings=(_told(found),) if found.telling else ())
    if not entries(mapping(pod, "spec"), "containers", ("spec",)):
        raise Unfit(("spec", "containers"), "there is none")
    asked = wishes(pod, injection)
    return Patched(
        tuple(changes(pod, asked, injection, roots)), warnings=tuple(_warnings(pod, asked))
    )


def changes(pod: Object, asked: Wishes, injection: Injection, roots: str) -> Iterator[Operation]:
    """Probes first: what is put before them moves them."""
    spec = mapping(pod, "spec")
    moved = tuple(rewritten(spec, asked.application)) if asked.transparent else ()
    for each in moved:
        yield from each.changes
    yield from _said(pod, "labels", {INJECTED: "true"})
    how = "transparent" if asked.transparent else "explicit"
    yield from _said(pod, "annotations", {INTERCEPTION: how})
    if any(each.get("name") == TOKEN for each in entries(spec, "volumes", ("spec",))):
        raise Unfit(("spec", "volumes"), f"the name {TOKEN} is the sidecar's: take another")
    yield from _listed(spec, "volumes", token(injection), first=False)
    sidecar = proxy(injection, asked, [each.probe for each in moved], roots)
    if injection.sidecar is Sidecar.CLASSIC:
        # Last: who is initialised before has the network as it was, for no sidecar runs yet.
        if asked.transparent:
            yield from _listed(spec, "initContainers", init(injection, asked), first=False)
        yield from _listed(spec, "containers", sidecar, first=True)
        return
    # Each before the one that stands there: rules, sidecar, and then whoever is meshed.
    yield from _listed(spec, "initContainers", sidecar, first=True)
    if asked.transparent:
        yield _add(("spec", "initContainers", 0), init(injection, asked))


def _said(pod: Object, key: str, new: dict[str, str]) -> Iterator[Operation]:
    if not isinstance(pod.get("metadata"), dict):
        # Of a template that says nothing; labels come first.
        if key == "labels":
            yield _add(("metadata",), {key: new})
        else:
            yield _add(("metadata", key), new)
        return
    known = words(mapping(pod, "metadata"), key, ("metadata",))
    if not known:
        yield _add(("metadata", key), new)
        return
    for name, value in new.items():
        yield _add(("metadata", key, name), value)


def _listed(spec: Object, key: str, new: Object, *, first: bool) -> Iterator[Operation]:
    if not spec.get(key):
        yield _add(("spec", key), [new])
    else:
        yield _add(("spec", key, 0 if first else "-"), new)


def _add(path: tuple[str | int, ...], value: object) -> Operation:
    return {"op": "add", "path": pointer(path), "value": value}


def _told(found: Left) -> str:
    return f"meshfed: no sidecar: {found.why}"


def _warnings(pod: Object, asked: Wishes) -> Iterator[str]:
    """What is allowed, and not what it looks like."""
    spec = mapping(pod, "spec")
    everyone = [("securityContext", spec), *_containers(spec)]
    for name, each in everyone:
        if asked.transparent and mapping(each, "securityContext").get("runAsUser") == USER:
            why = f"what user {USER} calls goes past the sidecar, which is that user itself"
            yield f"meshfed: {name}: runAsUser: {why}"


def _containers(spec: Object) -> Iterator[tuple[str, Object]]:
    for key in ("initContainers", "containers"):
        for each in entries(spec, key, ("spec",)):
            yield str(each.get("name")), each


def applied(pod: Object, patch: tuple[Operation, ...]) -> Object:
    """A pod with the changes in it; those of `changes`, `add` and `remove`, are known."""
    made = deepcopy(pod)
    for each in patch:
        *above, last = [
            part.replace("~1", "/").replace("~0", "~") for part in str(each["path"]).split("/")[1:]
        ]
        place: object = made
        for part in above:
            place = place[int(part)] if isinstance(place, list) else _dict(place)[part]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), deepcopy(each["value"]))
        elif each["op"] == "remove":
            del _dict(place)[last]
        else:
            _dict(place)[last] = deepcopy(each["value"])
    return made


def _dict(found: object) -> Object:
    assert isinstance(found, dict)
    return found
