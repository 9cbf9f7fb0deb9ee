"""What a pod says of its own sidecar, by annotations: ours, and OSM's beside them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from meshfed.federation.capture import Capture, network
from meshfed.federation.inject.decide import INTERCEPTION
from meshfed.federation.inject.injection import Injection, exceeded, quantity
from meshfed.federation.inject.raw import Object, Unfit, mapping, words

T = TypeVar("T")
APPLICATION = "meshfed.io/application"
OSM = "openservicemesh.io/"
INBOUND_PORTS = ("meshfed.io/exclude-inbound-ports", f"{OSM}inbound-port-exclusion-list")
OUTBOUND_PORTS = ("meshfed.io/exclude-outbound-ports", f"{OSM}outbound-port-exclusion-list")
OUTBOUND_RANGES = (
    "meshfed.io/exclude-outbound-ranges",
    f"{OSM}outbound-ip-range-exclusion-list",
)
ONLY_RANGES = ("meshfed.io/include-outbound-ranges", f"{OSM}outbound-ip-range-inclusion-list")
RESOURCES = {
    "meshfed.io/sidecar-cpu-request": ("requests", "cpu"),
    "meshfed.io/sidecar-memory-request": ("requests", "memory"),
    "meshfed.io/sidecar-cpu-limit": ("limits", "cpu"),
    "meshfed.io/sidecar-memory-limit": ("limits", "memory"),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """The mesh's settings with the pod's over them."""

    transparent: bool
    application: str  # where it listens, as its sidecar sees it
    capture: Capture
    resources: dict[str, dict[str, str]]


def wishes(pod: Object, injection: Injection) -> Wishes:
    """Raises Unfit."""
    said = words(mapping(pod, "metadata"), "annotations", ("metadata",))
    interception = said.get(INTERCEPTION, injection.interception)
    if interception not in ("transparent", "explicit"):
        why = f"{interception!r} is none of transparent, explicit, grpc, none"
        raise _unfit(INTERCEPTION, why)
    excluded = injection.exclude
    return Wishes(
        interception == "transparent",
        _read(said, APPLICATION, lambda text: str(ip_address(text)), "127.0.0.1"),
        Capture(
            _all(excluded.inbound_ports, said, INBOUND_PORTS, port),
            _all(excluded.outbound_ports, said, OUTBOUND_PORTS, port),
            _all(excluded.outbound_ranges, said, OUTBOUND_RANGES, network),
            _all((), said, ONLY_RANGES, network),
        ),
        resources(said, injection),
    )


def resources(said: Mapping[str, str], injection: Injection) -> dict[str, dict[str, str]]:
    """Raises Unfit."""
    found: dict[str, dict[str, str]] = {
        "requests": {str(name): text for name, text in injection.resources.requests.items()},
        "limits": {str(name): text for name, text in injection.resources.limits.items()},
    }
    for key, (kind, name) in RESOURCES.items():
        if amount := _read(said, key, quantity, ""):
            found[kind][name] = amount
    wrong = exceeded(found["requests"], found["limits"])
    for key, (_, name) in RESOURCES.items():
        if key in said and name in wrong:
            raise _unfit(key, wrong[name])
    return {kind: amounts for kind, amounts in found.items() if amounts}


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _all(
    everywhere: Iterable[T], said: Mapping[str, str], keys: Iterable[str], of: Callable[[str], T]
) -> tuple[T, ...]:
    """The mesh's and the pod's, each once, in this order."""
    found = list(everywhere)
    for key in keys:
        found += _read(said, key, lambda text: [of(p.strip()) for p in text.split(",")], [])
    return tuple(dict.fromkeys(found))


def _read(said: Mapping[str, str], key: str, of: Callable[[str], T], otherwise: T) -> T:
    if not said.get(key, "").strip():
        return otherwise
    try:
        return of(said[key].strip())
    except ValueError as error:
        raise _unfit(key, str(error)) from error


def _unfit(key: str, why: str) -> Unfit:
    return Unfit(("metadata", "annotations", key), why)
