"""What pydantic found wrong, in the words of someone who edits YAML."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from meshfed.catalog.document import Path

Finding = tuple[Path, str]
Shape = TypeVar("Shape", bound="Strict")

# pydantic's own words are about Python's types; these are about the file.
WORDS = {
    "missing": "required",
    "string_type": "must be text: put it in quotes",
    "bool_type": "must be true or false",
    "path_type": "must be the path of a file: put it in quotes",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a whole number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping, `key: value`",
    "invalid_key": "a key must be text: put it in quotes",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping, `key: value`",
    "model_attributes_type": "must be a mapping, `key: value`",
    "union_tag_not_found": "required",
}


class Strict(BaseModel):
    """The shape of something a person writes: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def findings(error: ValidationError, model: type[BaseModel]) -> Iterator[Finding]:
    """Each mistake with the path of the value that has it."""
    for found in error.errors(include_url=False):
        path, around = _placed(found["loc"], model)
        why = _words(found, around)
        if found["type"].startswith("union_tag"):
            path = (*path, found["ctx"]["discriminator"].strip("'"))
        key, colon, rest = why.partition(": ")
        if found["type"] == "value_error" and colon and key in _keys(around):
            path, why = (*path, key), rest  # of two keys together: the model names one of them
        yield path, why


def unknown(name: str, known: Collection[str]) -> str:
    """Why a key is refused, with the nearest one that exists."""
    near = nearest(name, known)
    return f"unknown; did you mean {near}?" if near else f"unknown; known: {', '.join(known)}"


def nearest(name: str, known: Collection[str], cutoff: float = 0.6) -> str:
    """The known word that a misspelt one is probably meant to be, or nothing."""
    folded = {word.lower(): word for word in known}
    close = get_close_matches(name.lower(), folded, n=1, cutoff=cutoff)
    return folded[close[0]] if close else ""


def _words(found: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "bool_type" and str(found["input"]).lower() in ("true", "false"):
        return f"{WORDS[kind]}, without quotes"
    if kind == "extra_forbidden":
        return unknown(str(found["loc"][-1]), list(_keys(model)))
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum"):
        return f"must be {context['expected']}"
    if kind == "union_tag_invalid":
        return f"must be {' or '.join(context['expected_tags'].split(', '))}"
    if kind == "greater_than_equal":
        return f"must be {context['ge']} or more"
    if kind == "less_than_equal":
        return f"must be {context['le']} or less"
    return WORDS.get(kind, found["msg"])


def _placed(path: Path, model: type[BaseModel]) -> tuple[Path, type[BaseModel]]:
    """The path as its writer knows it, and the model that it leads into."""
    written: Path = ()
    several: tuple[type[BaseModel], ...] = ()  # of which a tag says which is meant
    for part in path:
        tagged = next((each for each in several if part in _tags(each)), None)
        if tagged:
            model, several = tagged, ()
        if tagged or part == "[key]":  # pydantic's words: for what is meant, for a key itself
            continue
        written = (*written, part)
        fields = (f for name, f in model.model_fields.items() if part in (name, f.alias))
        field = next(fields, None)
        if field is None:  # a place in a list, or a key that its writer chose
            continue
        several = tuple(_models(field.annotation))
        model = several[0] if several else model
    return written, model


def _tags(model: type[BaseModel]) -> Iterator[object]:
    for field in model.model_fields.values():
        if get_origin(field.annotation) is Literal:
            yield from get_args(field.annotation)


def _keys(model: type[BaseModel]) -> Iterator[str]:
    return (field.alias or name for name, field in model.model_fields.items())


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
