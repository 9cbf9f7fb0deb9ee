"""The demo's cluster and its Azure: processes that say what their files say."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import yaml

from meshfed.federation.demo.folder import Folder, free, free_ports, hosts
from meshfed.federation.demo.platforms import AZURE, HOSTS, KUBERNETES, NAMES, OPTIONS, sellers
from meshfed.federation.demo.processes import Broken, Processes, last_words

OWN = "platforms"  # the folder of what they say, unless another is named
MODULES = {KUBERNETES: "meshfed.demo.kube.followed", AZURE: "meshfed.demo.arm"}


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a configuration, and the environment of whoever asks, are to have for it."""

    options: Mapping[str, object]
    environment: Mapping[str, str]


def file(folder: Path, platform: str) -> Path:
    """What says which machines a platform has."""
    return folder / f"{platform}.yaml"


async def furnish(
    path: Path, platforms: tuple[str, ...], processes: Processes, source: str = OWN
) -> tuple[Folder, Mapping[str, str]]:
    """The demo's files, its platforms, and the environment for its `serve`. Raises Broken."""
    providers: list[dict[str, object]] = []
    environment: dict[str, str] = {}
    with resources.as_file(resources.files("meshfed.demo")) as shipped:
        (path / "policy").mkdir()
        shutil.copyfile(shipped / source / "policy.yaml", path / "policy" / "policy.yaml")
        for platform in platforms:
            shutil.copyfile(shipped / source / f"{platform}.yaml", file(path, platform))
        config = Template((shipped / OWN / "meshfed.yaml").read_text())
    everyone = {host for each in platforms for host in sellers(each, file(path, each).read_text())}
    free(everyone.union(hosts(file(path, HOSTS).read_text())))
    for platform in (KUBERNETES, AZURE):
        if platform in platforms:
            said = await start(path, platform, processes)
            environment |= said.environment
            own = {"name": NAMES[platform], "type": platform}
            providers.append({**own, **OPTIONS[platform], **said.options})
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    lines = "\n".join(f"  - {json.dumps(each)}" for each in providers)
    text = config.substitute(folder=path, xds=xds, admin=admin, providers=lines)
    folder = Folder(path, yaml.safe_load(text)["mesh"]["trust_domain"], admin)
    folder.config.write_text(text)
    return folder, environment


async def start(path: Path, platform: str, processes: Processes) -> Inventory:
    """Start what stands for a platform. Raises Broken."""
    own = path / f"{platform}.d"
    own.mkdir()
    command = (sys.executable, "-m", MODULES[platform], own, file(path, platform))
    child = await processes.start(platform, command, pipe=True)
    if not (line := await child.reports.readline()):
        raise Broken(f"{platform} did not start: {last_words(child.log)}")
    said = json.loads(line)
    return Inventory(said["options"], said.get("environment", {}))
