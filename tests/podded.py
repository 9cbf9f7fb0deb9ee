"""The container of a chart, run here as its pod would: its user, its mounts, its read-only root."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from charted import HOME, container, only, pod
from disks import mounted
from kube.cluster import Cluster
from live import Process
from waiting import until

from meshfed.demo.kube.objects import Object
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.install.chart import RELEASE

PROJECT = Path(__file__).parent.parent
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# What an image has; the rest of this machine is not there.
IMAGE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/dev", sys.base_prefix, str(PROJECT))
FILES = ("/etc/passwd", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
DOORS = ("XDS__LISTEN", "XDS__TOKENS", "ADMIN__LISTEN", "HEALTH__LISTEN", "INJECTION__LISTEN")
START = 30.0  # seconds


def config_map(folder: Path, data: dict[str, str]) -> None:
    """As kubelet writes one: everything behind one link, which is swapped."""
    version = f"..{len(list(folder.iterdir()))}"
    (folder / version).mkdir()
    for name, text in data.items():
        (folder / version / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").replace(folder / "..data")


def world(things: list[Object], folder: Path) -> str:
    """Shell lines that make the root which the container sees, and go there."""
    root, spec = folder / "root", pod(things)["spec"]
    mounts = {each["name"]: each["mountPath"] for each in container(things)["volumeMounts"]}
    assert mounts.keys() == {each["name"] for each in spec["volumes"]}
    lines = [f"mount -t tmpfs tmpfs {root}"]
    for name, path in (*mounts.items(), ("account", ACCOUNT)):
        lines += [f"mkdir -p {root}{path}", f"mount --bind {folder / name} {root}{path}"]
    # After the pod's own mounts: this project may be below /tmp, which is one of them.
    for path in filter(lambda each: Path(each).exists(), IMAGE):
        lines += [f"mkdir -p {root}{path}", f"mount --rbind {path} {root}{path}"]
    lines += [f"mkdir -p {root}/etc", f"cp {' '.join(FILES)} {root}/etc/"]
    lines += [f"mount -o remount,ro {root}", f"cd {root}"]
    return "\n".join(lines)


def command(things: list[Object], given: dict[str, str]) -> list[str]:
    one, context = container(things), pod(things)["spec"]["securityContext"]
    assert one["securityContext"]["readOnlyRootFilesystem"]
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    user, group = context["runAsUser"], context["runAsGroup"]
    mine = {each["name"]: _told(each, given) for each in one["env"]}
    program = Path(sys.executable).parent / "meshfed"
    return [
        "chroot", ".",
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all",
        "--inh-caps=-all", "--no-new-privs",
        "env", "-i", "PATH=/usr/bin:/bin", "HOME=/",  # which a container runtime says
        *(f"{name}={text}" for name, text in (mine | given).items()),
        str(program), *one["args"],
    ]  # fmt: skip


def _told(variable: Object, given: dict[str, str]) -> str:
    known = {"metadata.name": "meshfed-0", "metadata.namespace": HOME}
    said = variable["valueFrom"]
    return known[said["fieldRef"]["fieldPath"]] if "fieldRef" in said else given[variable["name"]]


class Pod:
    """A running control plane."""

    def __init__(self, folder: Path, process: Process, ports: dict[str, int]) -> None:
        self.folder = folder
        self.process = process
        self.ports = ports

    def ready(self) -> bool:
        self.process.running()
        try:
            url = f"http://127.0.0.1:{self.ports['HEALTH__LISTEN']}/readyz"
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def told(self, data: dict[str, str]) -> None:
        """Another ConfigMap, as kubelet brings it."""
        config_map(self.folder / "settings", data)


@contextmanager
def running(things: list[Object], cluster: Cluster, folder: Path) -> Iterator[Pod]:
    """On ports of its own, which is the only thing that the chart does not say."""
    user = pod(things)["spec"]["securityContext"]["fsGroup"]
    for name in ("root", "settings", "state", "temporary", "account"):
        (folder / name).mkdir()
    for name in ("state", "temporary"):
        shutil.chown(folder / name, user, user)
    config_map(folder / "settings", only(things, "ConfigMap")["data"])
    (folder / "account" / "token").write_text(token(cluster))
    (folder / "account" / "namespace").write_text(HOME)
    shutil.copyfile(cluster.authority, folder / "account" / "ca.crt")
    ports = dict(zip(DOORS, free_ports(len(DOORS)), strict=True))
    host, _, port = cluster.host.removeprefix("https://").rpartition(":")
    given = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port} | {
        f"MESHFED_{name}": f"127.0.0.1:{port}" for name, port in ports.items()
    }
    made = mounted(world(things, folder), command(things, given))
    one = Pod(folder, Process(made, folder / "meshfed.log"), ports)
    try:
        until(one.ready, START)
        yield one
    finally:
        one.process.end()


def token(cluster: Cluster) -> str:
    """Of the account that the chart made."""
    path = f"/api/v1/namespaces/{HOME}/serviceaccounts/{RELEASE}/token"
    answer: str = cluster.request("POST", path, {"spec": {}})["status"]["token"]
    return answer
