"""The platforms that the demo can stand for, and what the file of each says of its machines."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import yaml

from meshfed.federation.demo.folder import Host, hosts, without

KUBERNETES, AZURE, HOSTS = "kubernetes", "azure", "hosts"
PLATFORMS = (KUBERNETES, AZURE, HOSTS)
ROWS = {KUBERNETES: "kubernetes", AZURE: "azure", HOSTS: "host"}  # as mesh_endpoints has them
NAMES = {KUBERNETES: "aks", AZURE: "weu"}  # of their providers
OPTIONS: Mapping[str, Mapping[str, object]] = {
    KUBERNETES: {"namespaces": {"label": "meshfed.io/mesh=demo"}, "network": "shop"},
    AZURE: {"auth": "client_secret", "refresh": "1s", "network": "shop"},
}
SERVICE = "bookstore.shop"
SELLER = "bookstore"  # the account of whoever sells
PORT = 14001

Clusters = Mapping[str, Mapping[str, str]]  # cluster, address: what Envoy thinks of it


def platforms(text: str) -> tuple[str, ...]:
    """Of `kubernetes,azure,hosts`, in their own order. Raises ValueError."""
    asked = [each.strip() for each in text.split(",")]
    for each in asked:
        if each not in PLATFORMS:
            raise ValueError(f"{each!r} is none of {', '.join(PLATFORMS)}")
    if HOSTS not in asked:
        raise ValueError(f"{text!r} lacks {HOSTS}, where the bookbuyer is")
    return tuple(each for each in PLATFORMS if each in asked)


def sellers(platform: str, text: str) -> tuple[Host, ...]:
    """Who answers for the bookstore there, by the names that they have in the catalog."""
    if platform == HOSTS:
        return tuple(host for host in hosts(text) if host.account == SELLER)
    if platform == KUBERNETES:
        pods = (each for each in yaml.safe_load_all(text) if each["kind"] == "Pod")
        found = [
            (f"{pod['metadata']['name']}.{pod['metadata']['namespace']}", pod["status"]["podIP"])
            for pod in pods
        ]
    else:
        said = yaml.safe_load(text)
        found = [(each["name"], each["address"]) for each in said["machines"]]
        found += [
            (f"{of['name']}_{each['name']}", each["address"])
            for of in said["sets"]
            for each in of.get("instances", ())
        ]
    return tuple(Host(name, address, SELLER, PORT) for name, address in found)


def emptied(platform: str, text: str) -> str:
    """What the platform says once all who sell there are gone."""
    if platform == HOSTS:
        for host in sellers(platform, text):
            text = without(text, host.name)
        return text
    if platform == AZURE:  # a machine that is deallocated is listed, and keeps its address
        return text.replace("power: running", "power: deallocated")
    kept = [each for each in yaml.safe_load_all(text) if each["kind"] != "Pod"]
    return yaml.safe_dump_all(
        each | {"endpoints": []} if each["kind"] == "EndpointSlice" else each for each in kept
    )


def starting(platform: str, text: str) -> str:
    """What it says while they are there again, and do not serve yet."""
    if platform == HOSTS:
        return re.sub(rf"service: {re.escape(SERVICE)},\s+port: {PORT},", "", text)
    if platform == AZURE:
        return text.replace("power: running", "power: starting")
    return text.replace("ready: true, serving: true", "ready: false, serving: false")


def clusters(text: str) -> Clusters:
    """Envoy's /clusters: the addresses of each cluster, and their health flags."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        match line.split("::"):
            case [cluster, address, "health_flags", flags]:
                found.setdefault(cluster, {})[address.rpartition(":")[0]] = flags
    return found


def dialled(found: Clusters) -> Mapping[str, str]:
    """The bookstore's addresses, as a caller's Envoy has them."""
    return {
        address: flags
        for cluster, there in found.items()
        if cluster.startswith(SERVICE)
        for address, flags in there.items()
    }


def left_alone(found: Mapping[str, str], addresses: Iterable[str], total: int) -> bool:
    """Whether Envoy has ejected these, or half of all: it ejects no more (xds/clusters.py)."""
    gone = [address for address in addresses if "/failed_outlier_check" in found.get(address, "")]
    return len(gone) >= min(len(list(addresses)), max(1, total // 2))


def by_platform(found: Iterable[str], of: Mapping[str, Sequence[Host]]) -> dict[str, int]:
    """How many addresses are on each platform, as `group by platform` says it."""
    where = {host.address: ROWS[name] for name, there in of.items() for host in there}
    return dict(Counter(where[address] for address in found))
