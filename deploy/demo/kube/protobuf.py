"""Kubernetes' protobuf of the few kinds that `kubectl create` sends so."""

import base64
from collections.abc import Iterator
from typing import Any

from meshfed.demo.kube.objects import Object, unsupported

MAGIC = b"k8s\x00"
VARINT, LENGTH = 0, 2
# Field number → name and type: text, bytes, number, map, a message, or several in a list.
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "Unknown": {1: ("type", "TypeMeta"), 2: ("raw", "bytes")},
    "TypeMeta": {1: ("apiVersion", "text"), 2: ("kind", "text")},
    "ObjectMeta": {
        1: ("name", "text"), 2: ("generateName", "text"), 3: ("namespace", "text"),
        11: ("labels", "map"), 12: ("annotations", "map"),
    },
    "Namespace": {1: ("metadata", "ObjectMeta")},
    "ServiceAccount": {1: ("metadata", "ObjectMeta")},
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "map")},
    "Secret": {1: ("metadata", "ObjectMeta"), 2: ("data", "map of bytes"), 3: ("type", "text")},
    "Service": {1: ("metadata", "ObjectMeta"), 2: ("spec", "ServiceSpec")},
    "ServiceSpec": {
        1: ("ports", "[ServicePort"), 2: ("selector", "map"), 3: ("clusterIP", "text"),
        4: ("type", "text"), 10: ("externalName", "text"),
    },
    "ServicePort": {
        1: ("name", "text"), 2: ("protocol", "text"), 3: ("port", "number"),
        4: ("targetPort", "IntOrString"), 5: ("nodePort", "number"),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "number"), 2: ("preconditions", "Preconditions"),
        4: ("propagationPolicy", "text"),
    },
    "Preconditions": {1: ("uid", "text"), 2: ("resourceVersion", "text")},
    "IntOrString": {1: ("type", "number"), 2: ("number", "number"), 3: ("text", "text")},
}  # fmt: skip


def decoded(body: bytes) -> Object:
    """Raises Refusal."""
    envelope = _message(body.removeprefix(MAGIC), "Unknown", raw=True)
    kind = envelope["type"]["kind"]
    if not body.startswith(MAGIC) or kind not in MESSAGES:
        raise unsupported(["application/json", "application/yaml"])
    return {**envelope["type"], **_message(envelope.get("raw", b""), kind)}


def _message(body: bytes, name: str, *, raw: bool = False) -> Any:
    """What is not in the table, and what is empty, is left out."""
    found: Object = {}
    for number, value in _fields(body):
        if number not in MESSAGES[name]:
            continue
        field, type_ = MESSAGES[name][number]
        if type_ == "number":
            shown = value
        elif type_ == "bytes":
            shown = value if raw else base64.b64encode(value).decode()
        elif type_ == "text":
            shown = value.decode()
        elif type_.startswith("map"):
            key, each = _entry(value)
            text = base64.b64encode(each) if type_ == "map of bytes" else each
            shown = found.get(field, {}) | {key.decode(): text.decode()}
        elif type_.startswith("["):
            shown = [*found.get(field, []), _message(value, type_[1:])]
        else:
            shown = _message(value, type_)
        if shown:
            found[field] = shown
    if name == "IntOrString":
        return found.get("text") if found.get("type") else found.get("number")
    return found


def _entry(body: bytes) -> tuple[bytes, bytes]:
    held: dict[int, Any] = dict(_fields(body))
    return held.get(1, b""), held.get(2, b"")


def _fields(body: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        value, at = _varint(body, at)
        if tag & 7 == LENGTH:
            yield tag >> 3, body[at : at + value]
            at += value
        elif tag & 7 == VARINT:
            yield tag >> 3, value
        else:
            raise unsupported(["application/json", "application/yaml"])


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
