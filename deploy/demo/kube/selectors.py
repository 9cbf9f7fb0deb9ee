"""Label and field selectors."""

import re
from collections.abc import Callable
from typing import Any

from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.objects import Object, bad_request

Selects = Callable[[Object], bool]

COMMA = re.compile(r",(?![^(]*\))")
KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
AMONG = re.compile(rf"({KEY})\s+(in|notin)\s+?\(([^()]*)\)|({KEY})\s+(in|notin)\(([^()]*)\)")
EQUAL = re.compile(rf"({KEY})\s*(==?|!=)\s*({VALUE})")
THERE = re.compile(rf"(!?)\s*({KEY})")
FIELD = re.compile(r"([\w.\[\]/-]+?)(==?|!=)(.*)")


def labelled(text: str) -> Selects:
    """What a label selector selects. Raises Refusal."""
    terms = [_term(term.strip()) for term in COMMA.split(text) if term.strip()]
    return lambda thing: all(term(thing["metadata"].get("labels") or {}) for term in terms)


def _term(text: str) -> Callable[[dict[str, str]], bool]:
    if found := AMONG.fullmatch(text):
        name, how, listed = (part for part in found.groups() if part is not None)
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(name) in values) == (how == "in")
    if found := EQUAL.fullmatch(text):
        name, how, value = found.groups()
        return lambda labels: (labels.get(name) == value) == (how != "!=")
    if found := THERE.fullmatch(text):
        absent, name = found.groups()
        return lambda labels: (name in labels) == (not absent)
    raise bad_request(f'unable to parse requirement: found "{text}"')


def fielded(text: str, kind: Kind) -> Selects:
    """What a field selector selects; only some fields of a kind are selectable. Raises Refusal."""
    terms = [_field(term, kind) for term in text.split(",") if term]
    return lambda thing: all(term(thing) for term in terms)


def _field(text: str, kind: Kind) -> Selects:
    if not (found := FIELD.fullmatch(text)):
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    path, how, value = found.groups()
    if path not in ("metadata.name", "metadata.namespace", *kind.selectable):
        raise bad_request(f"field label not supported: {path}")
    return lambda thing: (_shown(at(thing, path)) == value) == (how != "!=")


def name(fields: str) -> str:
    """The one name that a field selector can select; empty where there are others."""
    found = [each for each in fields.split(",") if each.startswith("metadata.name=")]
    return found[0].removeprefix("metadata.name=").removeprefix("=") if found else ""


def at(thing: Object, path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = thing
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
