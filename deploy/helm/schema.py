"""values.schema.json of the chart, made of its own values and of the configuration's schema.

python deploy/helm/schema.py > deploy/helm/meshfed/values.schema.json; a test keeps it true.
"""

import json
from collections.abc import Mapping
from typing import Any

from meshfed.federation.settings import schema as of_settings

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
YES_OR_NO: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
WORDS: Schema = {"type": "object", "additionalProperties": TEXT}  # labels, annotations, files
THINGS: Schema = {"type": "array", "items": {"type": "object"}}  # which the API server looks into
QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?|m|k)?$"}
AMOUNTS: Schema = {
    "type": "object",
    "additionalProperties": {"anyOf": [QUANTITY, {"type": "integer", "minimum": 1}]},
}
# What the chart says itself: where the state is, and which ports its services lead to.
CHARTS_OWN = (
    ("xds", "listen"), ("xds", "tokens"), ("admin", "listen"), ("health", "listen"),
    ("injection", "listen"), ("injection", "webhook"), ("certificates", "key_file"),
)  # fmt: skip


def known(properties: Mapping[str, Schema], **rest: object) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object", "additionalProperties": False, "properties": dict(properties), **rest,
    }  # fmt: skip


def settings() -> tuple[Schema, Schema]:
    """The configuration without what the chart fills in, and the definitions that it refers to."""
    whole: Schema = json.loads(of_settings())
    definitions: Schema = whole.pop("$defs")
    whole.pop("$schema")
    del whole["properties"]["catalog"]
    for section, key in CHARTS_OWN:
        name = whole["properties"][section]["$ref"].rpartition("/")[2]
        del definitions[name]["properties"][key]
    return whole, definitions


def schema() -> Schema:
    whole, definitions = settings()
    image = known({
        "repository": TEXT | {"minLength": 1}, "tag": TEXT,
        "digest": TEXT | {"pattern": "^(sha256:[0-9a-f]{64})?$"},
        "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    })  # fmt: skip
    values = known({
        "image": image,
        "imagePullSecrets": {"type": "array", "items": known({"name": TEXT})},
        "settings": whole,
        "files": WORDS | {"propertyNames": {"pattern": "^[-._a-zA-Z0-9]+$"}},
        "catalog": known({"existingSecret": TEXT, "size": QUANTITY, "storageClass": TEXT}),
        "replicas": {"type": "integer", "minimum": 1},
        "injector": known({"enabled": YES_OR_NO, "failurePolicy": {"enum": ["Fail", "Ignore"]}}),
        "definitions": YES_OR_NO,
        "machines": known({"enabled": YES_OR_NO, "annotations": WORDS, "sourceRanges": TEXTS}),
        "azure": known({"clientId": TEXT, "tenantId": TEXT}),
        "serviceAccount": known({"annotations": WORDS}),
        "podLabels": WORDS,
        "podAnnotations": WORDS,
        "resources": known({"requests": AMOUNTS, "limits": AMOUNTS}),
        "nodeSelector": WORDS,
        "tolerations": THINGS,
        "priorityClassName": TEXT,
        "networkPolicy": known({"enabled": YES_OR_NO, "metricsFrom": THINGS}),
        "serviceMonitor": known({"enabled": YES_OR_NO, "labels": WORDS, "interval": TEXT}),
        "global": {"type": "object"},
    })  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions,
        "title": "Values of the chart meshfed", **values,
    }  # fmt: skip


def written() -> str:
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(written(), end="")
