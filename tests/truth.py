"""What SMI means, as rows: some policies, one request, and who answers it.

Every row stands by its own policies, and all of them are in force side by side: what a row opens
is told apart by its path, its port, or who calls whom. Nothing is ever opened to `stranger`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

HTTP_APPLICATION, TCP_APPLICATION = 14301, 14302

WEB = f"{{ports: {{http: {{number: 8080, target: {HTTP_APPLICATION}}}}}}}"
CALLERS = {
    "caller": ("caller.truth", "127.0.71.1"),
    "other": ("other.truth", "127.0.71.2"),
    "stranger": ("stranger.truth", "127.0.71.3"),
    "namesake": ("caller.foreign", "127.0.71.4"),
}
SERVERS = {
    "server": ("server.truth", "127.0.71.11"),
    "spare": ("spare.truth", "127.0.71.12"),
    "far": ("server.foreign", "127.0.71.13"),
}
SERVED = {
    "server": (
        *("web", "both", "matched", "unmatched", "flat", "itself"),
        *("a", "several", "ledger", "pool-a"),
    ),
    "spare": ("spare", "both", "b", "elsewhere", "stock", "pool-b"),
    "far": ("far.foreign", "vault.foreign"),
}


def over_tcp(*ports: int) -> str:
    listed = (f"p{port}: {{number: {port}, target: {TCP_APPLICATION}}}" for port in ports)
    return f"{{protocol: tcp, ports: {{{', '.join(listed)}}}}}"


def full(service: str) -> str:
    return service if "." in service else f"{service}.truth"


def host(name: str, identity: str, address: str) -> str:
    served = ", ".join(map(full, SERVED.get(name, ())))
    at = f"address: {address}, bind: {address}, application: {address}"
    return f"  - {{name: {name}, identity: {identity}, {at}, service: [{served}]}}\n"


HOSTS = f"""\
services:
  rooted.truth: {{ports: {{http: 8080}}}}
  elsewhere.truth: {{ports: {{http: {{number: 8081, target: {HTTP_APPLICATION}}}}}}}
  several.truth: {{ports: {{one: {{number: 8081, target: {HTTP_APPLICATION}}},
                          two: {{number: 8082, target: {HTTP_APPLICATION}}}}}}}
  ledger.truth: {over_tcp(*range(3301, 3309))}
  stock.truth: {over_tcp(3309)}
  pool-a.truth: {over_tcp(3310)}
  pool-b.truth: {over_tcp(3310)}
  vault.foreign: {over_tcp(3400)}
  far.foreign: {WEB}
"""
for _name in ("web", "spare", "both", "matched", "unmatched", "flat", "itself", "a", "b", "empty"):
    HOSTS += f"  {_name}.truth: {WEB}\n"
HOSTS += "hosts:\n"
for _name, (_identity, _address) in {**CALLERS, **SERVERS}.items():
    HOSTS += host(_name, _identity, _address)

SHUT = "shut"  # what a TCP caller gets who gets nothing
Policies = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Of HTTP, or without a method a TCP connection."""

    source: str
    service: str
    port: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def authority(self) -> str:
        return f"{self.service}:{self.port}"


@dataclass(frozen=True, slots=True)
class Case:
    """Who answers, of those that ever do: hosts by name, statuses that are not 200, or SHUT."""

    name: str
    policies: Policies
    request: Request
    answers: frozenset[str]

    @property
    def divided(self) -> bool:
        return any("kind: TrafficSplit" in policy for policy in self.policies)

    @property
    def allowed(self) -> bool:
        return bool(self.answers & SERVERS.keys())


def objects(cases: Iterable[Case]) -> list[str]:
    """All of their policies, each once."""
    return list(dict.fromkeys(policy for case in cases for policy in case.policies))


# Objects, as text


def smi(kind: str, version: str, name: str, spec: str, at: str = "truth") -> str:
    metadata = f"{{name: {name}, namespace: {at}}}"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {{{spec}}}\n"


def account(spelled: str, kind: str = "ServiceAccount") -> str:
    """`name.namespace`, or `name` of whatever namespace is meant then."""
    name, _, namespace = spelled.partition(".")
    return f"{{kind: {kind}, name: {name}{f', namespace: {namespace}' * bool(namespace)}}}"


def rule(spelled: str) -> str:
    """`KIND NAME MATCH ...`"""
    kind, name, *matches = spelled.split()
    chosen = f", matches: [{', '.join(matches)}]" * bool(matches)
    return f"{{kind: {KINDS[kind]}, name: {name}{chosen}}}"


KINDS = {"http": "HTTPRouteGroup", "tcp": "TCPRoute", "udp": "UDPRoute"}


def target(
    name: str,
    *rules: str,
    sources: tuple[str, ...] = ("caller.truth",),
    to: str = "server.truth",
    at: str = "truth",
    version: str = "v1alpha3",
    kind: str = "ServiceAccount",
) -> str:
    callers = ", ".join(account(source, kind) for source in sources)
    spec = (
        f"destination: {account(to)}, sources: [{callers}], rules: [{', '.join(map(rule, rules))}]"
    )
    return smi("TrafficTarget", f"access.smi-spec.io/{version}", name, spec, at)


def group(name: str, *matches: str, at: str = "truth", version: str = "v1alpha4") -> str:
    spec = f"matches: [{', '.join(f'{{{match}}}' for match in matches)}]"
    return smi("HTTPRouteGroup", f"specs.smi-spec.io/{version}", name, spec, at)


def tcp(name: str, *ports: int, at: str = "truth") -> str:
    spec = f"matches: {{name: it, ports: [{', '.join(map(str, ports))}]}}"
    return smi("TCPRoute", "specs.smi-spec.io/v1alpha4", name, spec, at)


def split(
    name: str, *backends: str, of: str = "", matching: str = "", at: str = "truth", v: int = 4
) -> str:
    """Each backend is `SERVICE WEIGHT`."""
    parts = ", ".join(
        f"{{service: {service}, weight: {weight}}}" for service, weight in map(str.split, backends)
    )
    condition = f", matches: [{{kind: HTTPRouteGroup, name: {matching}}}]" * bool(matching)
    spec = f"service: {of or name}, backends: [{parts}]{condition}"
    return smi("TrafficSplit", f"split.smi-spec.io/v1alpha{v}", name, spec, at)


def opened(name: str, *matches: str) -> Policies:
    """A group that `caller` may call at `server`, whole."""
    return group(name, *matches), target(name, f"http {name}")


def connected(name: str, *ports: int) -> Policies:
    return tcp(name, *ports), target(name, f"tcp {name}")


# Requests, and rows


def asks(
    path: str,
    to: str = "web",
    by: str = "caller",
    method: str = "GET",
    headers: tuple[tuple[str, str], ...] = (),
) -> Request:
    """Of a service in the namespace truth, at port 8080, unless it says else."""
    service, _, port = to.partition(":")
    return Request(by, full(service), int(port or 8080), method, path, headers)


def dials(to: str, by: str = "caller") -> Request:
    return asks("", to, by, method="")


def row(name: str, policies: Policies, request: Request, *answers: str) -> Case:
    return Case(name, policies, request, frozenset(answers))
