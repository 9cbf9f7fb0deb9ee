"""Which lists are merged by a key, which are sets, and which are replaced whole."""

from collections.abc import Callable

from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.schema import LIST_KEYS, LIST_TYPE

Names = tuple[str, ...]  # of the fields on the way, without places in lists
Keyed = Callable[[Names], Names]  # the keys; none for a list that is replaced

SET: Names = ("",)
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
IN_CONTAINERS = {
    "ports": ("containerPort", "protocol"), "env": ("name",), "volumeMounts": ("mountPath",),
}  # fmt: skip
POD = {
    **{f"spec.{list_}": ("name",) for list_ in (*CONTAINERS, "volumes", "imagePullSecrets")},
    **{f"spec.{c}.{name}": keys for c in CONTAINERS for name, keys in IN_CONTAINERS.items()},
    "spec.hostAliases": ("ip",),
    "spec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
TEMPLATE = {f"spec.template.{path}": keys for path, keys in POD.items()}
CONDITIONS: dict[str, Names] = {"status.conditions": ("type",)}
EVERYWHERE = {"metadata.ownerReferences": ("uid",), "metadata.finalizers": SET}
LISTS: dict[str, dict[str, Names]] = {
    "Pod": {**POD, **CONDITIONS, "status.podIPs": ("ip",)},
    "Deployment": {**TEMPLATE, **CONDITIONS},
    "StatefulSet": {**TEMPLATE, **CONDITIONS},
    "Service": {"spec.ports": ("port", "protocol"), **CONDITIONS},
    "Node": {**CONDITIONS, "status.addresses": ("type",)},
    "Namespace": CONDITIONS,
    "ServiceAccount": {"secrets": ("name",)},
    "MutatingWebhookConfiguration": {"webhooks": ("name",)},
    "ValidatingWebhookConfiguration": {"webhooks": ("name",)},
}


def keyed(kind: Kind) -> Keyed:
    def of_built_in(names: Names) -> Names:
        return LISTS.get(kind.name, {}).get(".".join(names), ())

    def of_crd(names: Names) -> Names:
        schema = kind.schema or {}
        for name in names:
            while schema.get("type") == "array":
                schema = schema.get("items") or {}
            others = schema.get("additionalProperties")
            rest = others if isinstance(others, dict) else {}
            schema = (schema.get("properties") or {}).get(name, rest)
        if schema.get(LIST_TYPE) == "set":
            return SET
        return tuple(schema.get(LIST_KEYS) or ())

    within = of_built_in if kind.schema is None else of_crd
    return lambda names: EVERYWHERE.get(".".join(names)) or within(names)


def mark(item: object, keys: Names) -> dict[str, object]:
    """What makes an item of a keyed list that item."""
    held = item if isinstance(item, dict) else {}
    given = {"protocol": "TCP"}
    return {key: held.get(key, given.get(key)) for key in keys}
