"""The chart that comes with this package: what it makes of values, and what is wrong in them."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

import meshfed
from meshfed.federation.check import check
from meshfed.federation.settings import Refused as Unfit
from meshfed.federation.settings import document, over

if TYPE_CHECKING:
    from helm_python import Chart, HelmError

FOLDER = Path(meshfed.__file__).parent / "chart"
RELEASE = "meshfed"

Values = dict[str, Any]
Object = dict[str, Any]

# As the engine says what a schema or a template refuses.
REFUSED = re.compile(r"^- at '(?P<at>[^']*)': (?P<why>.*)$", re.MULTILINE)
FAILED = re.compile(r"execution error at \([^)]*\): (?P<why>.*)")


class Refused(Exception):
    """Values with which there would be no control plane; one line for each mistake."""

    def __init__(self, *lines: object) -> None:
        super().__init__("\n".join(map(str, lines)))
        self.lines = tuple(map(str, lines))


def archive() -> bytes:
    """The chart as one file: in a checkout a link leads out of it, on which Helm remarks."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", dereference=True) as tar:
        tar.add(FOLDER, RELEASE)
    return packed.getvalue()


def given(file: Path | None, assigned: tuple[str, ...]) -> Values:
    """A file of values, and over it what `--set` says. Raises Refused."""
    from helm_python import HelmError, parse_set_string

    values = read(file) if file else {}
    for each in assigned:
        try:
            values = over(values, parse_set_string(each))
        except HelmError as error:
            raise Refused(f"--set {each}: {error}") from error
    return values


def read(file: Path) -> Values:
    """Raises Refused."""
    try:
        written = document(file)
    except Unfit as refused:
        raise Refused(*refused.rejected) from refused
    if not isinstance(written.data, dict):
        raise Refused(written.reject((), "must be a mapping, `key: value`"))
    return written.data


def rendered(chart: "Chart", values: Mapping[str, Any], namespace: str) -> list[Object]:
    """What would be in a cluster that has nothing of it yet. Raises Refused."""
    from helm_python import HelmError

    try:
        texts = chart.render(dict(values), name=RELEASE, namespace=namespace)
    except HelmError as error:
        raise Refused(*refusals(error)) from error
    manifests = (text for name, text in sorted(texts.items()) if name.endswith(".yaml"))
    return [thing for text in manifests for thing in yaml.safe_load_all(text) if thing]


def refusals(error: "HelmError") -> list[str]:
    """Where in the values, and why; or all that the engine says, in one line."""
    said = str(error)
    found = [
        f"{at}: {each['why']}" if (at := each["at"].strip("/").replace("/", ".")) else each["why"]
        for each in REFUSED.finditer(said)
    ]
    failed = FAILED.search(said)
    return found or [failed["why"] if failed else " ".join(said.split())]


def mistakes(things: list[Object]) -> Iterator[str]:
    """What `meshfed validate` says of the settings that the control plane would start with."""
    (told,) = (each for each in things if each["kind"] == "ConfigMap")
    with TemporaryDirectory() as folder:
        for name, text in told["data"].items():
            (Path(folder) / name).write_text(text)
        for each in check([Path(folder) / "meshfed.yaml"], io.StringIO(), {}).rejected:
            yield str(each).replace(f"{folder}/", "")
