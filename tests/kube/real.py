"""A real kube-apiserver on a real etcd, started as envtest starts them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from live import Process
from waiting import until

from kube.cluster import Answered, Cluster, kubeconfig
from meshfed.demo.kube.access import MASTERS
from meshfed.demo.kube.kinds import BUILT_IN, CRD, NAMESPACE, Kind
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.papers import LOOPBACK, Authority, pem, public_pem
from meshfed.federation.demo.folder import free_ports

TOKEN = "real"  # of a server that lives as long as the tests
START = 60.0  # seconds; envtest gives it 20, on machines that do nothing else
DERIVED = {"endpoints", "leases"}  # made by the server itself, again and again


def binary(name: str) -> Path:
    """As envtest finds it: a variable for each, or one for the folder."""
    named = os.environ.get(f"TEST_ASSET_{name.upper().replace('-', '_')}")
    return Path(named or Path(os.environ["KUBEBUILDER_ASSETS"]) / name)


def etcd_flags(folder: Path, client: int, peer: int) -> list[str]:
    url = f"http://{LOOPBACK}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}:{client}",
        f"--advertise-client-urls={url}:{client}",
        f"--listen-peer-urls={url}:{peer}",
        f"--initial-advertise-peer-urls={url}:{peer}",
        f"--initial-cluster=default={url}:{peer}",
        "--unsafe-no-fsync=true",  # it is thrown away anyhow
    ]


def apiserver_flags(folder: Path, authority: Authority, etcd: int, port: int) -> list[str]:
    paper = authority.serves()
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "accounts.key").write_bytes(pem(key))
    (folder / "accounts.pub").write_bytes(public_pem(key))
    (folder / "tokens.csv").write_text(f'{TOKEN},tests,tests,"{MASTERS}"\n')
    return [
        f"--etcd-servers=http://{LOOPBACK}:{etcd}",
        f"--cert-dir={folder / 'made'}",
        f"--tls-cert-file={paper.certificate}",
        f"--tls-private-key-file={paper.key}",
        f"--client-ca-file={authority.file}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--secure-port={port}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--service-account-issuer=https://{LOOPBACK}:{port}/",
        f"--service-account-key-file={folder / 'accounts.pub'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",
        "--enable-aggregator-routing=true",  # webhooks by endpoints: no kube-proxy is here
    ]


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """One for all tests of a run; `swept` is what each leaves behind."""
    authority = Authority.make(folder)
    client, peer, port = free_ports(3)
    etcd = Process([binary("etcd"), *etcd_flags(folder, client, peer)], folder / "etcd.log")
    flags = apiserver_flags(folder, authority, client, port)
    server = Process([binary("kube-apiserver"), *flags], folder / "kube-apiserver.log")
    paper = authority.client("tests", MASTERS)
    config = folder / "kubeconfig.json"
    host = f"https://{LOOPBACK}:{port}"
    cluster = Cluster("tests", host, TOKEN, authority.file, paper, config)
    config.write_text(json.dumps(kubeconfig(cluster)))
    try:
        until(lambda: _ready(cluster, etcd, server), START)
        yield cluster
    finally:
        cluster.client.close()
        server.end()
        etcd.end()


def _ready(cluster: Cluster, *processes: Process) -> bool:
    for each in processes:
        each.running()
    try:
        answer = cluster.client.get("/readyz", headers=cluster.shown)
    except httpx.TransportError:
        return False
    default = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    return answer.is_success and cluster.has(default)


@contextmanager
def swept(cluster: Cluster) -> Iterator[None]:
    """Afterwards there is again what there was: nobody else deletes what a namespace held."""
    before = {key for key, _ in _all(cluster)}
    config = cluster.kubeconfig.read_text()
    yield
    cluster.kubeconfig.write_text(config)
    for key, thing in _all(cluster):
        if key in before:
            continue
        try:
            if thing["metadata"].get("finalizers"):
                cluster.patch(thing, {"metadata": {"finalizers": None}})
            cluster.delete(thing)
        except Answered as answer:
            if answer.code != 404:
                raise
        cluster.gone(thing)
    cluster.plurals.clear()


def _all(cluster: Cluster) -> Iterator[tuple[tuple[str, str], Object]]:
    """Objects by path and uid; CRDs before all, as they take theirs along, namespaces last."""
    others = (each for each in BUILT_IN if each not in (CRD, NAMESPACE))
    for kind in (CRD, *others, NAMESPACE):
        if kind.plural not in DERIVED:
            for thing in _listed(cluster, kind):
                yield (cluster.path(thing), thing["metadata"]["uid"]), thing


def _listed(cluster: Cluster, kind: Kind) -> Iterator[Object]:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    for thing in cluster.request("GET", f"{root}/{kind.plural}")["items"]:
        yield {"apiVersion": kind.api_version, "kind": kind.name, "metadata": thing["metadata"]}
