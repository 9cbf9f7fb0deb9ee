"""What the Kubernetes API says around objects, and how it is asked."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from meshfed.catalog.model import Rejected

Key = tuple[str, str]  # namespace and name


class Body(Protocol):
    """The body of an answer, piece by piece."""

    def iter_any(self) -> AsyncIterator[bytes]: ...


class Answer(Protocol):
    """An HTTP answer, of which the headers have come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> Body: ...

    async def read(self) -> bytes: ...


class Api(Protocol):
    """One cluster's API, with credentials."""

    def get(self, path: str, query: Mapping[str, str]) -> AbstractAsyncContextManager[Answer]:
        """The answer, once its headers have come. Raises Unreachable, then and while it is read."""
        ...


class Unreachable(Exception):
    """The API cannot be asked, or does not answer; in one line."""


class Refused(Exception):
    """The API answered that it will not."""

    def __init__(self, status: int, why: str, after: float = 0.0) -> None:
        super().__init__(f"{status}: {why}" if why else str(status))
        self.status = status
        self.after = after  # seconds for which it wants to be left alone


class Meta(msgspec.Struct, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class Bare(msgspec.Struct, gc=False):
    """What every object is."""

    metadata: Meta


class Status(msgspec.Struct):
    message: str = ""
    code: int = 0


class ListMeta(msgspec.Struct, rename={"next": "continue", "version": "resourceVersion"}):
    version: str
    next: str = ""


class Listed(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


EVENT = msgspec.json.Decoder(Event)
LISTED = msgspec.json.Decoder(Listed)
BARE = msgspec.json.Decoder(Bare)
STATUS = msgspec.json.Decoder(Status)
END = "k8s.io/initial-events-end"  # annotated on the bookmark after what there was at first


def refusal(key: Key, plural: str, error: msgspec.ValidationError) -> Rejected:
    """Why an object is not taken in: `Expected `str`, got `int` - at `$.spec.type``."""
    why, _, field = str(error).partition(" - at ")
    where = "/".join(part for part in (plural, *key) if part)
    field = field.strip("`").removeprefix("$").removeprefix(".")
    return Rejected(where, field, why, (".".join(filter(None, reversed(key))),))


def status(body: bytes) -> Status:
    try:
        return STATUS.decode(body)
    except msgspec.DecodeError:  # a proxy's page, not the API's
        return Status()


def named(found: msgspec.Raw) -> Key:
    """Raises msgspec.ValidationError."""
    meta = BARE.decode(found).metadata
    return meta.namespace, meta.name


def seen(found: msgspec.Raw) -> Meta:
    """What can be seen of an object of which nothing may be as it should."""
    try:
        return BARE.decode(found).metadata
    except msgspec.ValidationError:
        return Meta()


def ended(bookmark: msgspec.Raw) -> bool:
    return END in (seen(bookmark).annotations or ())


def retry_after(headers: Mapping[str, str]) -> float:
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0
