"""The wheel holds what the checkout does: every module, schema, migration and the demo's files."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / ".src" / "meshfed"
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", ".src")
SHIPPED = {".py", ".typed", ".json", ".yaml", ".tpl", ".txt"}


def shipped() -> set[str]:
    """All of the import package, wherever its links lead."""
    found = (
        Path(folder) / file
        for folder, _, files in os.walk(SOURCE, followlinks=True)
        for file in files
    )
    return {each.relative_to(SOURCE.parent).as_posix() for each in found if each.suffix in SHIPPED}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # From a copy: a build leaves its own folder beside the sources, and ships what is left in it.
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in BUILT_FROM:
        there = ROOT / name
        copy = shutil.copytree if there.is_dir() else shutil.copyfile
        copy(there, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, out], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return zipfile.ZipFile(made)


def test_nothing_of_the_package_is_left_behind(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if name.startswith("meshfed/")}
    assert sorted(inside ^ shipped()) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("meshfed/py.typed", id="that it has types"),
        pytest.param("meshfed/providers/hosts.schema.json", id="the schema of host lists"),
        pytest.param("meshfed/federation/settings.schema.json", id="the configuration's schema"),
        pytest.param("meshfed/migrations/versions/0001_catalog.py", id="migrations"),
        pytest.param("meshfed/demo/policy/split.yaml", id="the demo's policies"),
        pytest.param("meshfed/chart/templates/_names.tpl", id="the chart"),
        pytest.param("meshfed/chart/definitions/trafficsplits.yaml", id="its CRDs"),
        pytest.param("meshfed/providers/contract.py", id="the contract of providers"),
        pytest.param("meshfed/certificates/contract.py", id="the contract of issuers"),
    ],
)
def test_it_holds(wheel: zipfile.ZipFile, name: str) -> None:
    assert name in wheel.namelist()


def test_it_claims_no_name_but_its_own(wheel: zipfile.ZipFile) -> None:
    """`xds`, `envoy` and `validate` are other packages'."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"meshfed"}


def test_its_command_and_its_plugins_are_those_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    (written,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    said = {line for line in wheel.read(written).decode().splitlines() if " = " in line}
    installed = distribution("meshfed").entry_points
    assert said == {f"{point.name} = {point.value}" for point in installed}
