"""What holds for every pod that is injected, whatever stands in it."""

import json
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as some

from meshfed.demo.kube.patches import operated
from meshfed.federation.inject.decide import INIT, PROXY, TOKEN, Left
from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.patch import INJECTED, applied, patched

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
WORDS = some.sampled_from(["a", "b/c", "d~e", "f.g/h~i"])  # keys that a JSON pointer must escape
PORT = some.integers(1, 65535)
HANDLER = some.one_of(
    some.builds(lambda p: {"httpGet": {"path": "/up", "port": p}}, PORT),
    some.builds(lambda p: {"httpGet": {"port": p, "scheme": "HTTPS"}, "periodSeconds": 3}, PORT),
    some.builds(lambda p: {"tcpSocket": {"port": p}, "timeoutSeconds": 2}, PORT),
    some.builds(lambda p: {"grpc": {"port": p}}, PORT),
    some.just({"exec": {"command": ["true"]}}),
)
CONTAINER = some.fixed_dictionaries(
    {"image": some.just("i")},
    optional={
        **dict.fromkeys(PROBES, HANDLER | some.none()),
        "unknown": some.dictionaries(WORDS, some.integers()),
    },
)


def called(containers: list[dict[str, object]], stem: str) -> list[dict[str, object]]:
    return [{"name": f"{stem}-{n}", **each} for n, each in enumerate(containers)]


def listed(smallest: int, stem: str) -> some.SearchStrategy[list[dict[str, object]]]:
    return some.lists(CONTAINER, min_size=smallest, max_size=3).map(lambda c: called(c, stem))


PODS = some.fixed_dictionaries(
    {
        "spec": some.fixed_dictionaries(
            {"containers": listed(1, "app")},
            optional={
                "initContainers": listed(0, "init") | some.none(),
                "volumes": some.just([{"name": "data"}]) | some.none() | some.just([]),
                "unknown": some.text(),
            },
        )
    },
    optional={
        "metadata": some.none()
        | some.fixed_dictionaries(
            {},
            optional={
                "labels": some.dictionaries(WORDS, some.text()) | some.none(),
                "annotations": some.dictionaries(WORDS, some.text()) | some.none(),
            },
        )
    },
)
HOW = some.builds(
    Injection,
    sidecar=some.sampled_from(Sidecar),
    interception=some.sampled_from(["transparent", "explicit"]),
)


@settings(max_examples=40, deadline=None)
@given(PODS, HOW)
def test_injecting_twice_is_injecting_once_and_takes_nothing_away(pod, how):
    before = deepcopy(pod)
    found = patched(pod, None, how, "roots")
    made = applied(pod, found.changes)
    assert pod == before
    assert made == operated(pod, json.loads(json.dumps(found.changes)))
    assert patched(made, None, how, "roots").left == Left("it has its sidecar already")
    assert bare(made) == bare(pod)
    names = [each["name"] for each in (made["spec"].get("initContainers") or ())]
    names += [each["name"] for each in made["spec"]["containers"]]
    assert names.count(PROXY) == 1
    assert names.count(INIT) == (how.interception == "transparent")


def bare(pod):
    """A pod without what injection may add or change; nothing is as good as an empty list."""
    left = deepcopy(pod)
    for key in ("initContainers", "containers"):
        kept = [c for c in left["spec"].pop(key, None) or () if c["name"] not in (PROXY, INIT)]
        for container in kept:
            for field in PROBES:
                probe = container.get(field) or {}
                for handler in ("httpGet", "tcpSocket", "grpc"):
                    probe.pop(handler, None)
        left["spec"][key] = kept
    volumes = left["spec"].pop("volumes", None) or ()
    left["spec"]["volumes"] = [each for each in volumes if each["name"] != TOKEN]
    metadata = left.pop("metadata", None) or {}
    for key in ("labels", "annotations"):
        said = metadata.pop(key, None) or {}
        ours = (INJECTED, "meshfed.io/interception")
        left[key] = {name: text for name, text in said.items() if name not in ours}
    return {**left, "metadata": metadata}
