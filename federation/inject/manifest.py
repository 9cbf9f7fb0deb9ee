"""Manifests with sidecars in them: every kind that has pods, and all else as it was."""

from dataclasses import dataclass

import yaml

from meshfed.catalog.document import Unreadable, documents
from meshfed.catalog.model import Rejected
from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.patch import applied, patched
from meshfed.federation.inject.raw import Object, Path, Unfit, entries, entry, mapping, word

POD: Path = ()
TEMPLATE: Path = ("spec", "template")
WIDE = 1 << 20  # columns: lines stay as long as they were
# Where the pod is in each kind; apiVersion counts only as far as its group.
PODS: dict[tuple[str, str], Path] = {
    ("", "Pod"): POD,
    ("", "ReplicationController"): TEMPLATE,
    ("apps", "Deployment"): TEMPLATE,
    ("apps", "StatefulSet"): TEMPLATE,
    ("apps", "DaemonSet"): TEMPLATE,
    ("apps", "ReplicaSet"): TEMPLATE,
    ("batch", "Job"): TEMPLATE,
    ("batch", "CronJob"): ("spec", "jobTemplate", *TEMPLATE),
}


class Refused(Exception):
    """A manifest with mistakes in it."""

    def __init__(self, *rejected: Rejected) -> None:
        super().__init__("\n".join(map(str, rejected)))
        self.rejected = rejected


@dataclass(frozen=True, slots=True)
class Injected:
    """A manifest as it shall be applied, and what to say of it: a line for each pod."""

    text: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    thing: Object
    remarks: tuple[str, ...] = ()


class _Plain(yaml.SafeDumper):
    """Without anchors: what stands twice was written twice, or is ours."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)


def injected(text: str, file: str, injection: Injection, roots: str) -> Injected:
    """All documents of a text. Raises Refused, with a line for each mistake."""
    made: list[_Made] = []
    wrong: list[Rejected] = []
    try:
        for found in documents(text, file):
            try:
                made.append(thing(entry(found.data, ()), (), injection, roots))
            except Unfit as unfit:
                wrong.append(unfit.rejected(f"{file}:{found.line(unfit.path)}"))
    except Unreadable as unreadable:
        wrong.append(unreadable.rejected)
    if wrong:
        raise Refused(*wrong)
    if not made:
        raise Refused(Rejected(file, "", "there is no object in it"))
    return Injected(
        yaml.dump_all(
            [each.thing for each in made],
            Dumper=_Plain,
            sort_keys=False,
            allow_unicode=True,
            width=WIDE,
        ),
        tuple(remark for each in made for remark in each.remarks),
    )


def thing(of: Object, at: Path, injection: Injection, roots: str) -> _Made:
    """One object, or a list of them. Raises Unfit, its path from the document's root."""
    kind, version = word(of, "kind", at), word(of, "apiVersion", at)
    for field, said in (("kind", kind), ("apiVersion", version)):
        if not said:
            raise Unfit((*at, field), "missing: is this a manifest of Kubernetes?")
    if (kind, version) == ("List", "v1"):
        below = [
            thing(each, (*at, "items", n), injection, roots)
            for n, each in enumerate(entries(of, "items", at))
        ]
        listed = {**of, "items": [each.thing for each in below]}
        return _Made(listed, tuple(r for each in below for r in each.remarks))
    group = version.rpartition("/")[0]
    where = PODS.get((group, kind))
    return _Made(of) if where is None else _workload(of, kind, at, where, injection, roots)


def _workload(
    of: Object, kind: str, at: Path, where: Path, injection: Injection, roots: str
) -> _Made:
    pod = of
    for n, key in enumerate(where):
        pod = mapping(pod, str(key), (*at, *where[:n]))
    named = mapping(of, "metadata", at)
    name = f"{kind} {named.get('name') or named.get('generateName') or 'without a name'}"
    try:
        if not pod.get("spec"):
            raise Unfit(("spec",), "missing")
        made = patched(pod, None, injection, roots)
        done = applied(pod, made.changes)
    except Unfit as unfit:
        raise Unfit((*at, *where, *unfit.path), unfit.why) from unfit
    said = f"{name}: left as it is: {made.left.why}" if made.left else f"{name}: injected"
    more = () if made.left else tuple(f"{name}: {each}" for each in made.warnings)
    return _Made(_within(of, where, done), (said, *more))


def _within(of: Object, where: Path, pod: Object) -> Object:
    if not where:
        return pod
    key, *rest = where
    return {**of, str(key): _within(mapping(of, str(key)), tuple(rest), pod)}
