"""The chart that comes with this package, and what is wrong in values that somebody gives it."""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import meshfed
from meshfed.federation.check import check

FOLDER = Path(meshfed.__file__).parent / "chart"
RELEASE = "meshfed"

Object = dict[str, Any]

# As Helm says what a schema or a template refuses.
REFUSED = re.compile(r"^- at '(?P<at>[^']*)': (?P<why>.*)$", re.MULTILINE)
FAILED = re.compile(r"execution error at \([^)]*\): (?P<why>.*)")


class Refused(Exception):
    """Values with which there would be no control plane; one line for each mistake."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def objects(manifest: str) -> list[Object]:
    return [thing for thing in yaml.load_all(manifest, yaml.CSafeLoader) if thing]


def refusals(said: str) -> tuple[str, ...]:
    """Where in the values, and why; nothing where Helm speaks of something else."""
    found = [
        f"{at}: {each['why']}" if (at := each["at"].strip("/").replace("/", ".")) else each["why"]
        for each in REFUSED.finditer(said)
    ]
    failed = FAILED.search(said)
    return tuple(found) or ((failed["why"],) if failed else ())


def mistakes(things: Iterable[Object]) -> Iterator[str]:
    """What `meshfed validate` says of the settings that the control plane would start with."""
    (told,) = (each for each in things if each["kind"] == "ConfigMap")
    with TemporaryDirectory() as folder:
        for name, text in told["data"].items():
            (Path(folder) / name).write_text(text)
        for each in check([Path(folder) / "meshfed.yaml"], io.StringIO(), {}).rejected:
            yield str(each).replace(f"{folder}/", "")
