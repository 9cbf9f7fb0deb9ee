"""Objects as JSON, and the Status with which an API server refuses."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]  # namespace ("" for what has none), name


class Refusal(Exception):
    """A request that is answered by a Status: the HTTP status, and what it says."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Object | None = None,
        proceed: str = "",
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": proceed} if proceed else {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


class NoSuchPath(Exception):
    """A path that is no API's: answered in plain text, as Go's own server does."""


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def no_such_resource() -> Refusal:
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def unsupported(known: Sequence[str]) -> Refusal:
    message = "the body of the request was in an unknown format - accepted media types include: "
    return Refusal(415, "UnsupportedMediaType", message + ", ".join(known))


def expired(message: str, proceed: str = "") -> Refusal:
    return Refusal(410, "Expired", message, proceed=proceed)


def too_large(asked: int, current: int) -> Refusal:
    message = f"Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Refusal(
        504, "Timeout", message, details={"causes": [cause], "retryAfterSeconds": 1}, retry_after=1
    )


def invalid(group: str, kind: str, name: str, causes: Sequence[tuple[str, str]]) -> Refusal:
    """422, with what is wrong of each field."""
    said = [f"{field}: {why}" if field else why for field, why in causes]
    shown = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    resource = f"{kind}.{group}" if group else kind
    listed = [
        {"reason": "FieldValueInvalid", "message": why, "field": field} for field, why in causes
    ]
    details = {"name": name, "group": group, "kind": kind, "causes": listed}
    return Refusal(422, "Invalid", f'{resource} "{name}" is invalid: {shown}', details=details)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key(thing: Mapping[str, Any]) -> Key:
    metadata = thing["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def encode(thing: object) -> bytes:
    return json.dumps(thing, separators=(",", ":"), ensure_ascii=False).encode()
