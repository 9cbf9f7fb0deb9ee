"""Probes, asked through the sidecar: kubelet has no certificate of the mesh to show.

Each becomes an HTTP probe of the sidecar, which asks the application. What kubelet asks elsewhere
than in the pod, runs in the container, or cannot ask at all, stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from meshfed.federation.inject.raw import Object, Operation, Path, Unfit, entries, mapping, word
from meshfed.xds.pod_bootstrap import PROBES_PORT, Probe, Speaks

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HOOKS = ("postStart", "preStop")
TIMEOUT = 1  # seconds, Kubernetes' default of a probe
HOOK_TIMEOUT = 30  # seconds; a hook has none of its own but the pod's grace period


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A probe that the sidecar answers, and what to change in the pod for it."""

    probe: Probe
    changes: tuple[Operation, ...]


def rewritten(spec: Object, application: str) -> Iterator[Rewritten]:
    """Every probe of a pod that has to go through its sidecar. Raises Unfit.

    `application`: the address at which containers listen, as the sidecar sees it.
    """
    for key in ("initContainers", "containers"):
        for n, container in enumerate(entries(spec, key, ("spec",))):
            yield from _of(container, ("spec", key, n), application)


def _of(container: Object, at: Path, application: str) -> Iterator[Rewritten]:
    name, ports = word(container, "name", at), named_ports(container, at)
    for field in PROBES:
        handler = mapping(container, field, at)
        timeout = whole(handler.get("timeoutSeconds") or TIMEOUT, (*at, field, "timeoutSeconds"))
        asked = _asked(f"{name}/{field}", handler, (*at, field), ports, application, timeout)
        yield from asked
    hooks = mapping(container, "lifecycle", at)
    for field in HOOKS:
        below = (*at, "lifecycle", field)
        handler = mapping(hooks, field, (*at, "lifecycle"))
        if "httpGet" in handler:  # tcpSocket does nothing here, and sleep and exec need no network
            yield from _asked(f"{name}/{field}", handler, below, ports, application, HOOK_TIMEOUT)


def _asked(
    name: str, handler: Object, at: Path, ports: dict[str, int], application: str, timeout: int
) -> Iterator[Rewritten]:
    for kind in ("httpGet", "tcpSocket", "grpc"):
        if handler.get(kind) is None:
            continue
        asked = mapping(handler, kind, at)
        if word(asked, "host", (*at, kind)):  # somebody else's, whom kubelet asks from its node
            return
        number = port(asked.get("port"), ports, (*at, kind, "port"))
        speaks = spoken(kind, asked, (*at, kind))
        service = word(asked, "service", (*at, kind)) if kind == "grpc" else ""
        probe = Probe(name, speaks, application, number, timeout, service.replace("$", "$$"))
        yield Rewritten(probe, tuple(changes(probe, kind, asked, at)))
        return


def spoken(kind: str, asked: Object, at: Path) -> Speaks:
    if kind == "httpGet":
        scheme = (word(asked, "scheme", at) or "HTTP").upper()
        if scheme not in ("HTTP", "HTTPS"):
            raise Unfit((*at, "scheme"), f"{asked['scheme']!r} is neither HTTP nor HTTPS")
        return Speaks(scheme.lower())
    return Speaks.TCP if kind == "tcpSocket" else Speaks.GRPC


def changes(probe: Probe, kind: str, asked: Object, at: Path) -> Iterator[Operation]:
    """From one handler to HTTP at the sidecar; headers stay, and so does what is asked for."""
    path = probe.path
    if kind == "httpGet":
        path += "/" + word(asked, "path", (*at, kind)).removeprefix("/")
    handler: Object = {"path": path, "port": PROBES_PORT, "scheme": "HTTP"}
    if asked.get("httpHeaders"):
        handler["httpHeaders"] = asked["httpHeaders"]
    if kind != "httpGet":
        yield {"op": "remove", "path": pointer((*at, kind))}
    yield {"op": "add", "path": pointer((*at, "httpGet")), "value": handler}


def named_ports(container: Object, at: Path) -> dict[str, int]:
    """Kubelet looks names up among the ports of the same container."""
    found = {}
    for n, each in enumerate(entries(container, "ports", at)):
        below = (*at, "ports", n)
        if name := word(each, "name", below):
            found[name] = number(each.get("containerPort"), (*below, "containerPort"))
    return found


def port(said: object, names: dict[str, int], at: Path) -> int:
    """Raises Unfit."""
    if isinstance(said, str) and not said.isdigit():
        if said not in names:
            known = ", ".join(sorted(names)) or "none has a name"
            raise Unfit(at, f"{said!r} is no port of this container: {known}")
        return names[said]
    return number(int(said) if isinstance(said, str) else said, at)


def number(said: object, at: Path) -> int:
    found = whole(said, at)
    if not 1 <= found <= 65535:
        raise Unfit(at, f"{found} is not a port from 1 to 65535")
    return found


def whole(said: object, at: Path) -> int:
    if not isinstance(said, int) or isinstance(said, bool):
        raise Unfit(at, f"{said!r} is not a whole number")
    return said


def pointer(path: Path) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
