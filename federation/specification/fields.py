"""The fields of SMI objects: what may stand in each, and why something else may not."""

import re
from typing import Annotated, Literal

import re2
from pydantic import AfterValidator, BeforeValidator, Field, StrictInt

from meshfed.federation.fields import label

# Envoy refuses a listener or route table whose regex compiles to more than this
# (re2.max_program_size.error_level; tried with 1.40), and with it every other route in there.
MAX_PROGRAM_SIZE = 100

METHODS = Literal[
    "*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"
]
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name, RFC 9110, section 5.6.2
QUANTITY = re.compile(r"(\d{1,9})(m?)")


def regex(text: str) -> str:
    """The same text. Raises ValueError when it is not RE2, or too large for Envoy."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0]
        why = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{text!r} is not an RE2 expression: {why}") from error
    if compiled.programsize > MAX_PROGRAM_SIZE:
        size = f"{compiled.programsize} instructions, {MAX_PROGRAM_SIZE} at most"
        raise ValueError(f"too large a regular expression for Envoy ({size}): split it")
    return text


def path_regex(text: str) -> str:
    # What Go's types write for a field that was left out.
    return regex(text) if text else ".*"


def headers(written: object) -> tuple[tuple[str, str], ...]:
    """Conditions on headers: a list of maps in the CRDs, one map in the specification's text."""
    listed: list[object] = written if isinstance(written, list) else [written]
    maps = [each for each in listed if isinstance(each, dict)]
    if len(maps) < len(listed):
        raise ValueError("must be a list of `name: regex`, or one mapping of them")
    pairs = [pair for each in maps for pair in each.items()]
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        raise ValueError("names and expressions must be text: put them in quotes")
    names = [name.lower() for name, _ in pairs]
    for name in names:
        if not TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands here twice")
    return tuple((name.lower(), regex(value)) for name, value in pairs)


def thousandths(written: object) -> int:
    """A Kubernetes quantity, which v1alpha1 used for weights."""
    found = QUANTITY.fullmatch(str(written)) if isinstance(written, int | str) else None
    if not found:
        raise ValueError(f"{written!r} is not a weight of v1alpha1 (1, 500m): use v1alpha4")
    return int(found[1]) * (1 if found[2] else 1000)


def no_port(_: object) -> None:
    raise ValueError("not carried over: use v1alpha3, and a TCPRoute v1alpha4 that names the port")


def no_matches_yet(_: object) -> None:
    raise ValueError("this version has none: use v1alpha4")


Label = Annotated[str, AfterValidator(label)]
Regex = Annotated[str, AfterValidator(path_regex)]
Headers = Annotated[tuple[tuple[str, str], ...], BeforeValidator(headers)]
PortNumber = Annotated[StrictInt, Field(ge=1, le=65535)]
NoPort = Annotated[None, BeforeValidator(no_port)]
NoMatches = Annotated[None, BeforeValidator(no_matches_yet)]
