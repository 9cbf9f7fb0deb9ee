"""What `kubectl get` prints: a Table with the columns of the kind."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.objects import Object, encode
from meshfed.demo.kube.selectors import at

NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def table(kind: Kind, metadata: Object, things: Iterable[Object]) -> Object:
    columns = kind.columns or (AGE,)
    shown = [
        NAME,
        *(
            {
                "name": column["name"], "type": column["type"], "format": "",
                "description": column.get("description", ""),
                "priority": column.get("priority", 0),
            }
            for column in columns
        ),
    ]  # fmt: skip
    rows = [
        {
            "cells": [thing["metadata"]["name"], *(_cell(thing, column) for column in columns)],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": thing["metadata"],
            },
        }
        for thing in things
    ]
    return {
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": shown, "rows": rows,
    }  # fmt: skip


def _cell(thing: Object, column: Mapping[str, str]) -> object:
    """The first value at a column's path; `[*]` and `[0]` go into a list."""
    values: list[object] = [thing]
    for step in column["jsonPath"].removeprefix(".").replace("[", ".[").split("."):
        if step.startswith("["):
            lists = [value for value in values if isinstance(value, list)]
            values = [each for value in lists for each in value]
        else:
            values = [at(value, step) for value in values if isinstance(value, dict)]
    value = next((each for each in values if each is not None), None)
    if column["type"] == "date" and isinstance(value, str):
        return _age(datetime.now(UTC) - datetime.fromisoformat(value))
    if isinstance(value, list | dict):
        return encode(value).decode()
    return "" if value is None else value


def _age(passed: timedelta) -> str:
    seconds = int(passed.total_seconds())
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"
