"""Creates, updates, patches and deletes: what they make of an object, and what is refused."""

from collections.abc import Callable
from copy import deepcopy
from uuid import uuid4

from meshfed.demo.kube.asked import Asked, Target
from meshfed.demo.kube.builtin import METADATA, settled
from meshfed.demo.kube.kinds import CRD, NAMESPACE, Kind, known
from meshfed.demo.kube.lists import keyed
from meshfed.demo.kube.managed import after_update, applied
from meshfed.demo.kube.objects import Object, Refusal, bad_request, invalid, now, unsupported
from meshfed.demo.kube.patches import merged, operated, strategic
from meshfed.demo.kube.reading import selects
from meshfed.demo.kube.schema import defaulted, mistakes, pruned
from meshfed.demo.kube.store import Store, Stored

MERGE, JSON, STRATEGIC, APPLY = PATCHES = (
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
CONDITIONAL = {
    "Lease", "CustomResourceDefinition", "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
}  # fmt: skip
KEPT = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp",
    "deletionGracePeriodSeconds", "resourceVersion", "generateName", "managedFields",
)  # fmt: skip


def not_found(kind: Kind, name: str) -> Refusal:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return Refusal(404, "NotFound", f'{kind.resource} "{name}" not found', details=details)


def conflict(kind: Kind, name: str, why: str) -> Refusal:
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Refusal(409, "Conflict", message, details=details)


def found(store: Store, kind: Kind, of: Target) -> Stored:
    """The object that is named. Raises Refusal."""
    if (stored := store.get(kind, of.key)) is None:
        raise not_found(kind, of.name)
    return stored


def create(
    store: Store,
    kind: Kind,
    of: Target,
    asked: Asked,
    body: Object,
    fields: list[Object] | None = None,
) -> Object:
    """`fields` says who owns what, if that is not whoever asks. Raises Refusal."""
    thing = _typed(kind, body)
    metadata = thing["metadata"]
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if metadata.get("generateName") and not metadata.get("name"):
        metadata["name"] = metadata["generateName"] + uuid4().hex[:5]
    if not metadata.get("name"):
        why = [("metadata.name", "Required value: name or generateName is required")]
        raise invalid(kind.group, kind.name, "", why)
    _place(store, kind, of, metadata)
    if kind.status and kind.name not in ("Node", "CustomResourceDefinition"):
        thing.pop("status", None)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(name, None)
    metadata |= {"uid": str(uuid4()), "creationTimestamp": now()}
    if kind.generation:
        metadata["generation"] = 1
    metadata.pop("managedFields", None)
    thing = _admitted(store, kind, asked, thing, None)
    metadata = thing["metadata"]
    metadata["managedFields"] = fields or after_update(kind, None, thing, asked.manager, "")
    at = metadata.get("namespace", ""), metadata["name"]
    if store.get(kind, at):
        details = {"name": at[1], "group": kind.group, "kind": kind.plural}
        message = f'{kind.resource} "{at[1]}" already exists'
        raise Refusal(409, "AlreadyExists", message, details=details)
    if asked.dry_run:
        return thing
    return store.write(kind, "ADDED", thing, None).of(kind)


def _place(store: Store, kind: Kind, of: Target, metadata: Object) -> None:
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    if not of.namespace:
        raise Refusal(405, "MethodNotAllowed", "an empty namespace may not be set during creation")
    if metadata.setdefault("namespace", of.namespace) != of.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    home = store.get(NAMESPACE, ("", of.namespace))
    if home is None:
        raise not_found(NAMESPACE, of.namespace)
    if home.object["status"]["phase"] == "Terminating":
        why = f"unable to create new content in namespace {of.namespace}: it is being terminated"
        raise Refusal(403, "Forbidden", f'{kind.resource} "{metadata["name"]}" is forbidden: {why}')


def _typed(kind: Kind, body: Object) -> Object:
    """A body of this kind. Raises Refusal."""
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized: must be a JSON object")
    if body.setdefault("kind", kind.name) != kind.name:
        raise bad_request(f"the kind in the data ({body['kind']}) is not that of the URL")
    if body.setdefault("apiVersion", kind.api_version) != kind.api_version:
        said = body["apiVersion"]
        message = f"the API version in the data ({said}) does not match ({kind.api_version})"
        raise bad_request(message)
    if not isinstance(body.setdefault("metadata", {}), dict):
        raise bad_request("metadata must be an object")
    return body


def _admitted(
    store: Store, kind: Kind, asked: Asked, thing: Object, before: Object | None
) -> Object:
    """The object as it may be stored. Raises Refusal."""
    unknown = [f"metadata.{name}" for name in thing["metadata"].keys() - METADATA]
    causes: list[tuple[str, str]] = []
    if kind.schema is not None:
        thing, dropped = pruned(thing, kind.schema)
        unknown += dropped
        thing = defaulted(thing, kind.schema)
        causes += mistakes(thing, kind.schema)
    if unknown and asked.strict:
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(f"strict decoding error: {listed}")
    causes += settled(kind, thing, before, store.address)
    if causes:
        raise invalid(kind.group, kind.name, thing["metadata"]["name"], causes)
    if kind is CRD:
        thing["status"] = known(thing, before)
    return thing


def update(store: Store, kind: Kind, of: Target, asked: Asked, body: Object) -> Object:
    """Raises Refusal."""
    stored = found(store, kind, of)
    thing = _typed(kind, body)
    if thing["metadata"].get("name", of.name) != of.name:
        raise bad_request(f"the name of the object does not match the name on the URL ({of.name})")
    unconditional = kind.schema is None and kind.name not in CONDITIONAL
    if not thing["metadata"].get("resourceVersion") and not unconditional:
        why = "Invalid value: 0: must be specified for an update"
        raise invalid(kind.group, kind.name, of.name, [("metadata.resourceVersion", why)])
    if of.subresource == "finalize":
        return _finalized(store, stored, thing)
    return replace(store, kind, of, asked, stored, thing)


def replace(
    store: Store,
    kind: Kind,
    of: Target,
    asked: Asked,
    stored: Stored,
    thing: Object,
    fields: list[Object] | None = None,
) -> Object:
    """Writes another state of an object, if it is one. Raises Refusal."""
    before = stored.of(kind)
    metadata, known_metadata = thing["metadata"], before["metadata"]
    wanted = metadata.get("resourceVersion")
    if wanted and wanted != known_metadata["resourceVersion"]:
        why = "the object has been modified; please apply your changes to the latest version"
        raise conflict(kind, of.name, f"{why} and try again")
    if (uid := metadata.get("uid", known_metadata["uid"])) != known_metadata["uid"]:
        why = "StorageError: invalid object, Code: 4, AdditionalErrorMsg: Precondition failed: "
        why += f"UID in precondition: {uid}, UID in object meta: "
        raise conflict(kind, of.name, why + known_metadata["uid"])
    thing = _merged_with(kind, of, before, thing)
    thing = _admitted(store, kind, asked, thing, before)
    thing = _counted(kind, before, thing)
    thing["metadata"]["managedFields"] = fields or after_update(
        kind, before, thing, asked.manager, of.subresource
    )
    if known_metadata.get("deletionTimestamp"):
        _no_new_finalizers(kind, known_metadata, thing["metadata"])
    if asked.dry_run or thing == before:
        return thing
    metadata = thing["metadata"]
    if metadata.get("deletionTimestamp") and _done(kind, before, thing):
        return store.write(kind, "DELETED", thing, stored).of(kind)
    return store.write(kind, "MODIFIED", thing, stored).of(kind)


def _done(kind: Kind, before: Object, thing: Object) -> bool:
    """Whether only finalizers kept it, and the last of them has gone."""
    return bool(before["metadata"].get("finalizers")) and not thing["metadata"].get("finalizers")


def _merged_with(kind: Kind, of: Target, before: Object, thing: Object) -> Object:
    """What a request may change: the status, or all but the status."""
    if of.subresource == "status":
        thing = {**before, "status": thing.get("status")}
        if thing["status"] is None:
            del thing["status"]
        return deepcopy(thing)
    thing = deepcopy(thing)
    if kind.status:
        thing.pop("status", None)
        if "status" in before:
            thing["status"] = deepcopy(before["status"])
    for name in KEPT:
        thing["metadata"].pop(name, None)
        if name in before["metadata"]:
            thing["metadata"][name] = before["metadata"][name]
    for name in ("labels", "annotations", "finalizers"):
        if not thing["metadata"].get(name):
            thing["metadata"].pop(name, None)
    return thing


def _counted(kind: Kind, before: Object, thing: Object) -> Object:
    aside = ("metadata", "status") if kind.status else ("metadata",)
    meant = {name: value for name, value in thing.items() if name not in aside}
    if kind.generation and meant != {k: v for k, v in before.items() if k not in aside}:
        thing["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
    return thing


def _no_new_finalizers(kind: Kind, before: Object, after: Object) -> None:
    new = set(after.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if new:
        why = "Forbidden: no new finalizers can be added if the object is being deleted"
        raise invalid(kind.group, kind.name, after["name"], [("metadata.finalizers", why)])


def _finalized(store: Store, stored: Stored, thing: Object) -> Object:
    """What the namespace controller does once a namespace is empty."""
    after = deepcopy(stored.object)
    after["spec"] = thing.get("spec") or {}
    gone = "deletionTimestamp" in after["metadata"] and not after["spec"].get("finalizers")
    return store.write(NAMESPACE, "DELETED" if gone else "MODIFIED", after, stored).object


def patch(
    store: Store, kind: Kind, of: Target, asked: Asked, content: str, body: Object
) -> tuple[Object, bool]:
    """The object, and whether it is new. Raises Refusal."""
    if content not in PATCHES or (content == STRATEGIC and kind.schema is not None):
        takes = PATCHES if kind.schema is None else (JSON, MERGE, APPLY)
        raise unsupported(takes)
    if content == APPLY:
        return apply(store, kind, of, asked, body)
    stored = found(store, kind, of)
    ways: dict[str, Callable[[Object, Object], Object]] = {
        MERGE: merged,
        JSON: operated,
        STRATEGIC: lambda thing, body: strategic(thing, body, keyed(kind)),
    }
    thing = _typed(kind, ways[content](deepcopy(stored.of(kind)), body))
    _same(kind, stored.of(kind), thing)
    return replace(store, kind, of, asked, stored, thing), False


def _same(kind: Kind, before: Object, thing: Object) -> None:
    """A patch makes of an object no other, while an update may have meant another."""
    uid = thing["metadata"].get("uid", before["metadata"]["uid"])
    if uid != before["metadata"]["uid"]:
        causes = [("metadata.uid", f'Invalid value: "{uid}": field is immutable')]
        raise invalid(kind.group, kind.name, before["metadata"]["name"], causes)


def apply(store: Store, kind: Kind, of: Target, asked: Asked, body: Object) -> tuple[Object, bool]:
    if not asked.manager:
        why = "fieldManager: Required value: is required for apply patch"
        raise invalid("meta.k8s.io", "PatchOptions", "", [("fieldManager", why)])
    wanted = _typed(kind, body)
    if "managedFields" in wanted["metadata"]:
        raise bad_request("metadata.managedFields must be nil")
    wanted["metadata"].setdefault("name", of.name)
    stored = store.get(kind, of.key)
    before = deepcopy(stored.of(kind)) if stored else {}
    thing, fields = applied(kind, before, wanted, asked.manager, of.subresource, force=asked.force)
    if stored is None:
        return create(store, kind, of, asked, thing, fields), True
    _same(kind, before, thing)
    return replace(store, kind, of, asked, stored, thing, fields), False


def delete(store: Store, kind: Kind, of: Target, asked: Asked, body: Object) -> Object:
    """What is left of it, or the Status that it is gone. Raises Refusal."""
    stored = found(store, kind, of)
    metadata = stored.object["metadata"]
    for name, wanted in (body.get("preconditions") or {}).items():
        if wanted and wanted != metadata[name]:
            why = f"Precondition failed: {name} in precondition: {wanted}, in object: "
            raise conflict(kind, of.name, why + metadata[name])
    left = stored.of(kind) if asked.dry_run else _removed(store, kind, stored, body)
    if left is not None:
        return left
    details = {"name": of.name, "group": kind.group, "kind": kind.plural, "uid": metadata["uid"]}
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    }  # fmt: skip


def delete_all(store: Store, kind: Kind, of: Target, asked: Asked, body: Object) -> Object:
    selected = selects(kind, of, asked)
    chosen = [each for each in store.all(kind).values() if selected(each.of(kind))]
    for stored in chosen if not asked.dry_run else ():
        _removed(store, kind, stored, body)
    return {
        "kind": f"{kind.name}List", "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(store.revision)},
        "items": [each.of(kind) for each in chosen],
    }  # fmt: skip


def _removed(store: Store, kind: Kind, stored: Stored, body: Object) -> Object | None:
    """An object that stays for a while, as it then is."""
    thing = deepcopy(stored.of(kind))
    metadata = thing["metadata"]
    grace = body.get("gracePeriodSeconds")
    # A kubelet ends a pod; nobody is there to do it for one that no node runs.
    stays = kind.name == "Pod" and bool(thing["spec"].get("nodeName")) and grace != 0
    if kind is NAMESPACE:
        stays = bool(thing["spec"].get("finalizers"))
        thing["status"] = {"phase": "Terminating"}
    if not stays and not metadata.get("finalizers"):
        store.write(kind, "DELETED", thing, stored)
        return None
    if not metadata.get("deletionTimestamp"):
        seconds = 30 if stays and grace is None and kind.name == "Pod" else grace or 0
        metadata |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": seconds}
        return store.write(kind, "MODIFIED", thing, stored).of(kind)
    return thing
