"""A provider from a package of its own is installed, and its endpoints are in a real Envoy."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import live
import pytest
import yaml

RACKDB = Path(__file__).parent / "third_party" / "rackdb"
CALLER = "127.0.11.1"
HOSTS = f"""\
hosts:
  - {{name: caller, address: {CALLER}, bind: {CALLER}, identity: caller.live}}
"""


def test_contributing_shows_the_provider_that_is_tested_here() -> None:
    shown = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    for file in (RACKDB / "rackdb.py", RACKDB / "pyproject.toml"):
        assert f"\n{file.read_text()}```" in shown


def install(package: Path, folder: Path) -> None:
    """With pip, into a folder of its own; pip builds in the source, so in a copy."""
    source = copytree(package, folder / "source")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    alone = ("--disable-pip-version-check", "--root-user-action", "ignore")
    pip = (sys.executable, "-m", "pip", "install", *options, *alone)
    subprocess.run([*pip, "--target", folder / "installed", source], check=True, cwd=folder)


async def test_its_endpoints_are_in_a_real_envoy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(RACKDB, tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"), prepend=os.pathsep)
    folder = tmp_path / "mesh"
    folder.mkdir()
    racks = folder / "racks.txt"
    racks.write_text("rack-7 10.7.0.7 inventory.live 8080 inventory.live\n")
    mesh = live.Mesh(folder, HOSTS, {})
    mesh.written["mesh"] = {"trust_domain": live.DOMAIN, "permissive": True}
    mesh.written["providers"] += [{"name": "db", "type": "rackdb", "path": racks.name}]
    live.replace(mesh.config, yaml.safe_dump(mesh.written))
    try:
        await mesh.serve()
        await mesh.start("caller")
        assert await reached(mesh) == {"10.7.0.7:15003"}
        more = racks.read_text() + "rack-8 10.7.0.8 inventory.live 8080 inventory.live\n"
        await mesh.change(lambda: live.replace(racks, more))
        assert await reached(mesh) == {"10.7.0.7:15003", "10.7.0.8:15003"}
    finally:
        mesh.end()


async def reached(mesh: live.Mesh) -> set[str]:
    """The addresses that the caller's Envoy has for the service."""
    page = await asyncio.to_thread(live.envoys.get, CALLER, live.envoys.ADMIN, "/clusters")
    return set(re.findall(r"^inventory\.live\|8080::([^:]+:\d+)::health_flags", page[1], re.M))
