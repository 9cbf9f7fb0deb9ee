"""Structural schemas: what a CRD may say, and what that makes of its objects."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import re2

from meshfed.demo.kube.objects import Object, encode

Schema = Mapping[str, Any]
Mistakes = Iterator[tuple[str, str]]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
ALWAYS = ("apiVersion", "kind", "metadata")
JUNCTORS = ("allOf", "anyOf", "oneOf", "not")
CHECKS = {
    "format", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "multipleOf", "maxProperties",
    "minProperties", "required", "enum", "properties", "items", *JUNCTORS,
}  # fmt: skip
KNOWN = CHECKS | {
    "type", "description", "title", "default", "nullable", "additionalProperties", "example",
    "externalDocs", PRESERVE, EMBEDDED, INT_OR_STRING, LIST_TYPE, LIST_KEYS,
    "x-kubernetes-map-type", "x-kubernetes-validations",
}  # fmt: skip
TYPES: dict[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _number(value) and value == int(value),  # type: ignore[call-overload]
    "number": lambda value: _number(value),
}


def unstructural(schema: Schema, at: str = "openAPIV3Schema") -> Mistakes:
    """Why a schema cannot be in a CRD."""
    for word in schema.keys() - KNOWN:
        yield f"{at}.{word}", "unknown field"
    if not (schema.get("type") or schema.get(PRESERVE) or schema.get(INT_OR_STRING)):
        yield f"{at}.type", "Required value: must not be empty for specified object fields"
    if schema.get("type") not in (None, *TYPES):
        yield f"{at}.type", f'Unsupported value: "{schema["type"]}"'
    if schema.get("properties") and schema.get("additionalProperties"):
        yield f"{at}.additionalProperties", "Forbidden: mutual exclusive with properties"
    if schema.get("type") == "array" and "items" not in schema:
        yield f"{at}.items", "Required value: must be specified"
    yield from _patterns(schema, at)
    yield from _keys(schema, at)
    for word in JUNCTORS:
        for part in _junction(schema, word):
            yield from _alternative(part, schema, f"{at}.{word}")
    if "default" in schema:
        for path, why in mistakes(schema["default"], schema, f"{at}.default"):
            yield path, why
    for path, below in _below(schema, at):
        yield from unstructural(below, path)


def _below(schema: Schema, at: str) -> Iterator[tuple[str, Schema]]:
    for name, each in (schema.get("properties") or {}).items():
        yield f"{at}.properties[{name}]", each
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield f"{at}.{word}", schema[word]


def _patterns(schema: Schema, at: str) -> Mistakes:
    if "pattern" in schema:
        try:
            re2.compile(schema["pattern"])
        except re2.error as error:
            yield f"{at}.pattern", f"Invalid value: {schema['pattern']!r}: {error}"


def _keys(schema: Schema, at: str) -> Mistakes:
    if schema.get(LIST_TYPE) != "map":
        return
    items = schema.get("items", {})
    if not schema.get(LIST_KEYS):
        yield f"{at}.{LIST_KEYS}", "Required value: must not be empty if list-type is map"
    for name in schema.get(LIST_KEYS) or ():
        field = items.get("properties", {}).get(name, {})
        if name not in items.get("required", ()) and "default" not in field:
            yield f"{at}.items.properties[{name}].default", "Required value: this property is a key"


def _junction(schema: Schema, word: str) -> list[Schema]:
    parts = schema.get(word) or []
    return [parts] if isinstance(parts, dict) else parts


def _alternative(part: Schema, whole: Schema, at: str) -> Mistakes:
    """Below anyOf and its like stand checks alone, and of fields that are specified outside."""
    for word in part.keys() - CHECKS:
        yield f"{at}.{word}", "Forbidden: must be empty to be structural"
    for name, below in (part.get("properties") or {}).items():
        outside = (whole.get("properties") or {}).get(name)
        if outside is None:
            yield f"{at}.properties[{name}]", "Required value: must be specified outside too"
        else:
            yield from _alternative(below, outside, f"{at}.properties[{name}]")
    if "items" in part:
        yield from _alternative(part["items"], whole.get("items", {}), f"{at}.items")
    for word in JUNCTORS:
        for each in _junction(part, word):
            yield from _alternative(each, whole, f"{at}.{word}")


def pruned(thing: Object, schema: Schema) -> tuple[Object, list[str]]:
    """An object without what its schema does not know, and what that was."""
    dropped: list[str] = []
    return _pruned(thing, schema, "", dropped, ALWAYS), dropped


def _pruned(
    value: Any, schema: Schema, at: str, dropped: list[str], always: tuple[str, ...] = ()
) -> Any:
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_pruned(each, items, f"{at}[{n}]", dropped) for n, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    always = ALWAYS if schema.get(EMBEDDED) else always
    properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
    kept: Object = {}
    for name, each in value.items():
        path = f"{at}.{name}" if at else name
        if name in always:
            kept[name] = each
        elif name in properties:
            kept[name] = _pruned(each, properties[name], path, dropped)
        elif isinstance(others, dict):
            kept[name] = _pruned(each, others, path, dropped)
        elif others or schema.get(PRESERVE):
            kept[name] = each
        else:
            dropped.append(path)
    return kept


def defaulted(value: Any, schema: Schema) -> Any:
    if isinstance(value, list):
        return [defaulted(each, schema.get("items") or {}) for each in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    rest = others if isinstance(others, dict) else {}
    added = {
        name: each["default"]
        for name, each in properties.items()
        if "default" in each and value.get(name) is None and not each.get("nullable")
    }
    return {
        name: defaulted(each, properties.get(name, rest)) for name, each in (value | added).items()
    }


def mistakes(value: Any, schema: Schema, at: str = "") -> Mistakes:
    """What is wrong of a value, each with its field."""
    if value is None and schema.get("nullable"):
        return
    if schema.get(INT_OR_STRING):
        if not (isinstance(value, str) or TYPES["integer"](value)):
            yield at, _must_be(value, at, "integer,string")
    elif (wanted := schema.get("type")) and not TYPES[wanted](value):
        yield at, _must_be(value, at, wanted)
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(encode(each).decode() for each in schema["enum"])
        yield at, f"Unsupported value: {_shown(value)}: supported values: {supported}"
    yield from _amounts(value, schema, at)
    yield from _parts(value, schema, at)
    yield from _junctions(value, schema, at)


def _amounts(value: Any, schema: Schema, at: str) -> Mistakes:
    if isinstance(value, str) and "pattern" in schema and not re2.search(schema["pattern"], value):
        yield at, _should(value, at, f"should match '{schema['pattern']}'")
    if _number(value) and "multipleOf" in schema and value % schema["multipleOf"]:
        yield at, _should(value, at, f"should be a multiple of {schema['multipleOf']}")
    for noun, is_one, size in (
        ("", _number(value), value),
        ("Length", isinstance(value, str), len(value) if isinstance(value, str) else 0),
        ("Items", isinstance(value, list), len(value) if isinstance(value, list) else 0),
        ("Properties", isinstance(value, dict), len(value) if isinstance(value, dict) else 0),
    ):
        if not is_one:
            continue
        least = schema.get(f"min{noun}" if noun else "minimum")
        most = schema.get(f"max{noun}" if noun else "maximum")
        if least is not None and (size < least or (size == least and _strict(schema, "Min", noun))):
            yield at, _bound(value, at, "least", least, noun)
        if most is not None and (size > most or (size == most and _strict(schema, "Max", noun))):
            yield at, _bound(value, at, "most", most, noun)


def _parts(value: Any, schema: Schema, at: str) -> Mistakes:
    if isinstance(value, dict):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        for name in schema.get("required") or ():
            if name not in value:
                yield f"{at}.{name}" if at else name, "Required value"
        for name, each in value.items():
            if (below := properties.get(name, others)) and isinstance(below, dict):
                yield from mistakes(each, below, f"{at}.{name}" if at else name)
    if isinstance(value, list):
        for n, each in enumerate(value):
            yield from mistakes(each, schema.get("items") or {}, f"{at}[{n}]")
        yield from _twice(value, schema, at)


def _twice(value: list[Any], schema: Schema, at: str) -> Mistakes:
    if schema.get(LIST_TYPE) not in ("map", "set"):
        return
    seen: list[Any] = []
    for n, each in enumerate(value):
        if schema[LIST_TYPE] == "map" and not isinstance(each, dict):
            continue
        mark = {k: each.get(k) for k in schema[LIST_KEYS]} if LIST_KEYS in schema else each
        if mark in seen:
            yield f"{at}[{n}]", f"Duplicate value: {encode(mark).decode()}"
        seen.append(mark)


def _junctions(value: Any, schema: Schema, at: str) -> Mistakes:
    for part in schema.get("allOf") or ():
        yield from mistakes(value, part, at)
    fitting = {word: _fitting(value, schema.get(word) or ()) for word in ("anyOf", "oneOf")}
    if schema.get("anyOf") and not fitting["anyOf"]:
        yield at, _should(value, at, "must validate at least one schema (anyOf)")
    if schema.get("oneOf") and fitting["oneOf"] != 1:
        yield at, _should(value, at, "must validate one and only one schema (oneOf)")
    if "not" in schema and _fitting(value, [schema["not"]]):
        yield at, _should(value, at, "must not validate the schema (not)")


def _fitting(value: Any, schemas: Any) -> int:
    return sum(next(mistakes(value, each), None) is None for each in schemas)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _strict(schema: Schema, bound: str, noun: str) -> bool:
    return not noun and bool(schema.get(f"exclusive{bound}imum"))


def _must_be(value: Any, at: str, wanted: str) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    name = "null" if value is None else names.get(type(value), "number")
    return f'Invalid value: "{name}": {at} in body must be of type {wanted}: "{name}"'


def _bound(value: Any, at: str, which: str, bound: float, noun: str) -> str:
    if noun:
        return _should(value, at, f"should have at {which} {bound} {noun.lower()}")
    than = "greater" if which == "least" else "less"
    return _should(value, at, f"should be {than} than or equal to {bound}")


def _should(value: Any, at: str, what: str) -> str:
    return f"Invalid value: {_shown(value)}: {at} in body {what}"


def _shown(value: Any) -> str:
    shown = encode(value).decode()
    return shown if len(shown) < 80 else f"{shown[:80]}…"
