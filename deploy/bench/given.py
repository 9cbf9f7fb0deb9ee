"""The mesh that is measured: N hosts in groups of ten, where everyone may call everyone."""

import json
from collections.abc import Iterator

DOMAIN = "bench.example"
GROUP = 10  # hosts that answer for one service, with one identity
SPARE = "spare"  # a host without a proxy, which leaves and comes back

Json = dict[str, object]

HOSTS: Json = {"name": "rack", "type": "hosts", "path": "hosts.yaml"}


def services(hosts: int) -> list[str]:
    return [f"app-{n}" for n in range(max(2, -(-hosts // GROUP)))]


def names(hosts: int) -> list[str]:
    return [f"host-{n}" for n in range(hosts)]


def host_list(hosts: int, *, weight: int = 1, spare: bool = False) -> str:
    """A host a line; `weight` is the first one's."""
    names = ("front", *services(hosts))
    declared = [f"  {name}.bench: {{ports: {{http: 80}}}}" for name in names]
    listed = [f"  - {json.dumps(host)}" for host in _hosts(hosts, weight, spare=spare)]
    return "\n".join(("services:", *declared, "hosts:", *listed, ""))


def _hosts(hosts: int, weight: int, *, spare: bool) -> Iterator[Json]:
    for n, name in enumerate(names(hosts)):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        yield _host(name, address, f"app-{n // GROUP}.bench", weight=1 if n else weight)
    if spare:
        yield _host(SPARE, "10.255.255.1", "app-0.bench", weight=1)


def _host(name: str, address: str, app: str, *, weight: int) -> Json:
    entry: Json = {"name": name, "address": address, "service": app, "identity": app}
    return {**entry, "weight": weight, "locality": "onprem/rack-1"}


def access(hosts: int) -> str:
    everyone = [_account(name) for name in services(hosts)]
    group = _object("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", "all")
    matches = [{"name": "all", "pathRegex": ".*", "methods": ["*"]}]
    documents = [{**group, "spec": {"matches": matches}}]
    for account in everyone:
        target = _object("access.smi-spec.io/v1alpha3", "TrafficTarget", f"call-{account['name']}")
        rules = [{"kind": "HTTPRouteGroup", "name": "all"}]
        spec = {"destination": account, "sources": everyone, "rules": rules}
        documents.append({**target, "spec": spec})
    return "\n---\n".join(map(json.dumps, documents))


def split(first: int) -> str:
    """From front.bench to the first two services."""
    weights = {"app-0": first, "app-1": 100 - first}
    backends = [{"service": name, "weight": weight} for name, weight in weights.items()]
    root = _object("split.smi-spec.io/v1alpha4", "TrafficSplit", "front")
    return json.dumps({**root, "spec": {"service": "front", "backends": backends}})


def configuration(xds: str, admin: str, provider: Json = HOSTS) -> str:
    return json.dumps(
        {
            "mesh": {"trust_domain": DOMAIN},
            "catalog": "sqlite:///meshfed.db",
            "providers": [provider],
            "specification": [{"type": "files", "path": "policy/"}],
            "xds": {"listen": xds},
            "admin": {"listen": admin},
        }
    )


def _account(name: str) -> Json:
    return {"kind": "ServiceAccount", "name": name, "namespace": "bench"}


def _object(version: str, kind: str, name: str) -> Json:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "bench"},
    }
