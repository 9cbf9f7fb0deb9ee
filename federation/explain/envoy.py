"""What a live Envoy says of itself on its admin page, where that can be reached from here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import cast

from meshfed.catalog.database import seconds
from meshfed.catalog.model import Workload
from meshfed.federation.certificates.proxyfiles import admin
from meshfed.federation.explain.config import Held, member
from meshfed.federation.explain.kinds import Kind
from meshfed.xds.bootstrap import CONTROL_PLANE
from meshfed.xds.measured import ADMIN_PAGES

PATIENCE = 2.0  # seconds for a page
Json = Mapping[str, object]

# What its bootstrap has, and nobody sends: the control plane's cluster, the secrets for it, and the
# cluster of its own pages.
OWN = {
    *((Kind.ENDPOINTS, name) for name in (CONTROL_PLANE, ADMIN_PAGES)),
    *((Kind.SECRETS, name) for name in ("own", "roots")),
}


def parsed(dump: Json) -> tuple[Held, ...]:
    """The resources in a /config_dump?include_eds that came over xDS."""
    found: list[Held] = []
    for part in _list(dump, "configs"):
        match str(part.get("@type", "")).rpartition(".")[2]:
            case "ClustersConfigDump":
                found += _clusters(part)
            case "ListenersConfigDump":
                found += _listeners(part)
            case "RoutesConfigDump":
                found += _routes(part)
            case "EndpointsConfigDump":
                found += _endpoints(part)
            case "SecretsConfigDump":
                found += _secrets(part)
    return tuple(found)


def _clusters(part: Json) -> Iterator[Held]:
    for key in ("dynamic_active_clusters", "dynamic_warming_clusters"):
        for each in _list(part, key):
            name = str(_part(each, "cluster").get("name"))
            yield Held(Kind.CLUSTERS, name, _version(each), rejected=_error(each))


def _listeners(part: Json) -> Iterator[Held]:
    for each in _list(part, "dynamic_listeners"):
        standing = _part(each, "active_state") or _part(each, "warming_state")
        version, error = _version(standing), _error(each)
        yield Held(Kind.LISTENERS, str(each.get("name")), version, rejected=error)


def _routes(part: Json) -> Iterator[Held]:
    for each in _list(part, "dynamic_route_configs"):
        name = str(_part(each, "route_config").get("name"))
        yield Held(Kind.ROUTES, name, _version(each), rejected=_error(each))


def _endpoints(part: Json) -> Iterator[Held]:
    for each in _list(part, "dynamic_endpoint_configs"):
        told = _part(each, "endpoint_config")
        yield Held(
            Kind.ENDPOINTS, str(told.get("cluster_name")), _version(each), tuple(_members(told))
        )


def _members(told: Json) -> list[str]:
    return sorted(
        member(str(at.get("address")), int(str(at.get("port_value"))), _int(group, "priority"))
        for group in _list(told, "endpoints")
        for each in _list(group, "lb_endpoints")
        if (at := _part(_part(_part(each, "endpoint"), "address"), "socket_address"))
    )


def _secrets(part: Json) -> Iterator[Held]:
    for key in ("dynamic_active_secrets", "dynamic_warming_secrets"):
        for each in _list(part, key):
            yield Held(Kind.SECRETS, str(each.get("name")), _version(each))


@dataclass(frozen=True, slots=True)
class Paper:
    """A certificate that an Envoy holds."""

    names: tuple[str, ...]
    not_after: str  # in UTC, to the second


def papers(told: Json) -> tuple[Paper, ...]:
    """The certificates in /certs that are its own, not those it trusts."""
    return tuple(
        Paper(
            tuple(str(v) for san in _list(each, "subject_alt_names") for v in san.values()),
            str(each.get("expiration_time")),
        )
        for certificate in _list(told, "certificates")
        for each in _list(certificate, "cert_chain")
    )


def _version(of: Json) -> str:
    return str(of.get("version_info") or "")


def _error(of: Json) -> str:
    return str(_part(of, "error_state").get("details") or "")


def _part(of: Json, key: str) -> Json:
    inside = of.get(key)
    return cast(Json, inside) if isinstance(inside, dict) else {}


def _list(of: Json, key: str) -> Sequence[Json]:
    inside = of.get(key)
    return cast(Sequence[Json], inside) if isinstance(inside, list) else ()


def _int(of: Json, key: str) -> int:
    value = of.get(key)
    return value if isinstance(value, int) else 0


# Asking it


class Elsewhere(Exception):
    """The admin page of this workload's Envoy is not to be had from here; the message says why."""


def held(workload: Workload) -> tuple[Held, ...]:
    """What the workload's own Envoy has. Raises Elsewhere."""
    found = parsed(page(own(workload), "/config_dump?include_eds"))
    return tuple(each for each in found if (each.kind, each.name) not in OWN)


def ended(workload: Workload, now: float) -> str:
    """When the certificate ended with which it would connect; empty while it is good.

    Raises Elsewhere.
    """
    shown = [p for p in papers(page(own(workload), "/certs")) if _is_for_xds(p, workload)]
    return min((p.not_after for p in shown if seconds(p.not_after) <= now), default="")


def _is_for_xds(paper: Paper, workload: Workload) -> bool:
    return any(name.startswith(f"{workload.id}.workload.") for name in paper.names)


def own(workload: Workload) -> str:
    """Where the workload's own Envoy shows itself. Raises Elsewhere."""
    where = admin(workload)
    node = str(_part(page(where, "/server_info"), "node").get("id"))
    if node != workload.id:
        raise Elsewhere(f"the Envoy at {where} is another's ({node}): ask on its own machine")
    return where


def page(where: str, path: str) -> Json:
    host, _, port = where.rpartition(":")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        told = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError) as error:
        why = f"no Envoy's admin page answers at {where}: ask on the machine it runs on"
        raise Elsewhere(why) from error
    finally:
        connection.close()
    return cast(Json, told) if isinstance(told, dict) else {}
