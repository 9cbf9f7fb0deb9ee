"""The demo's working folder: its files, and the two edits that a person would make to them."""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from random import sample
from string import Template

import yaml

from meshfed.federation.demo.envoys import ADMIN, INBOUND, OUTBOUND
from meshfed.federation.demo.processes import Broken

QUIET_PORTS = range(20_000, 32_768)  # the kernel gives those above to any connection that is made
LEDGER = 13306  # the ledger's `local` port at its callers (hosts.yaml)


@dataclass(frozen=True, slots=True)
class Host:
    """What the demo has to know of one entry of its own host list."""

    name: str
    address: str
    account: str  # of its identity: which application it runs
    port: int | None  # its application's, if anyone calls it

    @property
    def ports(self) -> tuple[int, ...]:
        """Those its sidecar and its application will listen on."""
        own = (ADMIN, OUTBOUND, INBOUND)
        return own if self.port is None else (*own, self.port)


def hosts(text: str) -> tuple[Host, ...]:
    return tuple(
        Host(
            name=entry["name"],
            address=entry["address"],
            account=entry["identity"].partition(".")[0],
            port=entry.get("port"),
        )
        for entry in yaml.safe_load(text)["hosts"]
    )


def weighted(text: str, weights: dict[str, int]) -> str:
    """A TrafficSplit with other weights, and its comments."""
    for backend, weight in weights.items():
        text = re.sub(rf"(service: {backend}, weight: )\d+", rf"\g<1>{weight}", text)
    return text


def without(text: str, host: str) -> str:
    """A host list without the line of one host."""
    kept = (line for line in text.splitlines(keepends=True) if f"{{name: {host}," not in line)
    return "".join(kept)


def replace(path: Path, text: str) -> float:
    """Put a whole new file in its place; when that was."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    renamed = time.time()
    new.rename(path)
    return renamed


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on, nor is given before they are used."""
    free = filter(_free, sample(QUIET_PORTS, len(QUIET_PORTS)))
    return list(islice(free, count))


def _free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def taken(hosts: Iterable[Host]) -> Iterator[str]:
    """Why an address of the demo cannot be listened on."""
    for host in hosts:
        for port in (*host.ports, LEDGER):
            try:
                socket.create_server((host.address, port)).close()
            except OSError as error:
                yield f"{host.address}:{port}: {os.strerror(error.errno or 0)}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A private folder with the demo's files in it."""

    path: Path
    domain: str
    admin: str

    @property
    def config(self) -> Path:
        return self.path / "meshfed.yaml"

    @property
    def hosts(self) -> Path:
        return self.path / "hosts.yaml"

    @property
    def split(self) -> Path:
        return self.path / "policy" / "split.yaml"

    def papers(self, host: str) -> Path:
        """Where `proxy bootstrap` writes one host's files."""
        return self.path / "proxies" / host


def furnish(path: Path) -> Folder:
    """Copy what the package ships, and fill in what differs from run to run. Raises Broken."""
    shipped = resources.files("meshfed.demo")
    with resources.as_file(shipped) as source:
        shutil.copytree(source / "policy", path / "policy")
        shutil.copyfile(source / "hosts.yaml", path / "hosts.yaml")
        config = Template((source / "meshfed.yaml").read_text())
    xds, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    text = config.substitute(folder=path, xds=xds, admin=admin)
    folder = Folder(path, yaml.safe_load(text)["mesh"]["trust_domain"], admin)
    folder.config.write_text(text)
    free(hosts(folder.hosts.read_text()))
    return folder


def free(hosts: Iterable[Host]) -> None:
    """Raises Broken when somebody listens where one of them will."""
    for problem in taken(hosts):
        raise Broken(f"{problem}: is another demo running?")
