"""What a pod's sidecar is started with: a token that it reads from a file, and probes to answer.

It is the same text for every pod but for the probes: `$(POD_…)` is what kubelet replaces in a
container's arguments by its environment, which the downward API fills in.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshfed.xds import measured
from meshfed.xds.bootstrap import CONTROL_PLANE, HTTP, TLS, Address, Json, document

ADMIN = Address("127.0.0.1", 15000)
PROBES_PORT = 15901
PROBES = "probes"
READY, LIVE = "/ready", "/live"
# The field of a pod that each variable is.
FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_ACCOUNT": "spec.serviceAccountName",
    "POD_IP": "status.podIP",
}
NAME, IDENTITY = "$(POD_NAME).$(POD_NAMESPACE)", "$(POD_ACCOUNT).$(POD_NAMESPACE)"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
CREDENTIALS = "envoy.grpc_credentials.file_based_metadata"
# A stream that is begun while nobody is there waits until somebody is: gRPC's service config.
WAITING: Json = {"methodConfig": [{"name": [{}], "waitForReady": True}]}
APART = "1s"  # how often a port, or a gRPC server, is asked


class Speaks(StrEnum):
    """How an application is asked whether it is well."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question that kubelet asks, and the sidecar puts to the application."""

    name: str  # <container>/<field>, of the pod alone
    speaks: Speaks
    address: str
    port: int
    timeout: int  # seconds
    service: str = ""  # of gRPC's health protocol

    @property
    def path(self) -> str:
        return f"/{self.name}"

    @property
    def cluster(self) -> str:
        return f"probe|{self.name}"


def pod_bootstrap(
    *, control_plane: Address, roots: str, token: str, probes: Sequence[Probe] = ()
) -> Json:
    """Envoy's bootstrap; `roots` is PEM, `token` the file with the pod's credential."""
    return document(
        node_id=NAME,
        identity=IDENTITY,
        asked=by_token(control_plane, roots, token),
        admin=ADMIN,
        clusters=[probed(probe) for probe in probes],
        listeners=[measured.listener("$(POD_IP)"), answering(probes)],
        # Not ready before it knows the mesh: by default Envoy would be after 15 s, without any.
        patience={"initial_fetch_timeout": "0s"},
    )


def by_token(where: Address, roots: str, token: str) -> Json:
    """Envoy's own gRPC client can send no token; gRPC's reads the file for each stream.

    It verifies the control plane by the name that it dials.
    """
    host = f"[{where.host}]" if ":" in where.host else where.host
    metadata = "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig"
    plugin = {
        "name": CREDENTIALS,
        "typed_config": {
            "@type": metadata,
            "secret_data": {"filename": token},
            "header_key": "authorization",
            "header_prefix": "Bearer ",
        },
    }
    return {
        "google_grpc": {
            "target_uri": f"{host}:{where.port}",
            "stat_prefix": CONTROL_PLANE,
            "channel_credentials": {
                "ssl_credentials": {"root_certs": {"inline_string": roots}},
            },
            "credentials_factory_name": CREDENTIALS,
            "call_credentials": [{"from_plugin": plugin}],
            "channel_args": {
                "args": {
                    # A control plane that lost power is noticed, and another one asked.
                    "grpc.keepalive_time_ms": {"int_value": 30_000},
                    "grpc.keepalive_timeout_ms": {"int_value": 10_000},
                    # How soon it asks again: by default up to two minutes later.
                    "grpc.max_reconnect_backoff_ms": {"int_value": 5_000},
                    # Envoy (1.40) heeds its `retry_policy` for its own client alone: after each
                    # stream that ends at once this one's next would come later, by up to 30 s.
                    "grpc.service_config": {"string_value": json.dumps(WAITING)},
                }
            },
        },
    }


def answering(probes: Iterable[Probe]) -> Json:
    """Where kubelet asks: for the sidecar itself, and for each probe of the application."""
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": PROBES,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "route_config": {
            "virtual_hosts": [
                {"name": PROBES, "domains": ["*"], "routes": [*own(), *forwarded(probes)]}
            ]
        },
        "http_filters": [*known(probes), router()],
    }
    http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": PROBES,
        "address": Address("$(POD_IP)", PROBES_PORT).json(),
        "filter_chains": [{"filters": [http]}],
    }


def own() -> Iterator[Json]:
    """Ready: Envoy has what it needs to know. Alive: its main thread answers, whatever it knows."""
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    for path, page in ((READY, "/ready"), (LIVE, "/hot_restart_version")):
        action = {"cluster": measured.ADMIN_PAGES, "prefix_rewrite": page}
        yield {"match": {"path": path, "headers": [get]}, "route": action}


def forwarded(probes: Iterable[Probe]) -> Iterator[Json]:
    """The application answers HTTP probes itself, at the path after the probe's name."""
    for probe in probes:
        if probe.speaks in (Speaks.HTTP, Speaks.HTTPS):
            action = {
                "cluster": probe.cluster,
                "prefix_rewrite": "/",
                "timeout": f"{probe.timeout}s",
            }
            yield {"match": {"prefix": f"{probe.path}/"}, "route": action}


def known(probes: Iterable[Probe]) -> Iterator[Json]:
    """Of other probes Envoy's active health check knows the answer.

    Were kubelet to connect to Envoy it would succeed always: Envoy accepts, and connects later.
    """
    for probe in probes:
        if probe.speaks in (Speaks.TCP, Speaks.GRPC):
            asked = {"name": ":path", "string_match": {"exact": probe.path}}
            check = {
                "@type": f"{FILTERS}.http.health_check.v3.HealthCheck",
                "pass_through_mode": False,
                "headers": [asked],
                "cluster_min_healthy_percentages": {probe.cluster: {"value": 100}},
            }
            yield {"name": "envoy.filters.http.health_check", "typed_config": check}


def router() -> Json:
    typed = {"@type": f"{FILTERS}.http.router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": typed}


def probed(probe: Probe) -> Json:
    """The application's port, as a cluster that is connected to anew for each question.

    Its counters keep its own name: how many of it are healthy is one of them.
    """
    options: Json = {
        "@type": HTTP,
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    made: Json = {
        "name": probe.cluster,
        "type": "STATIC",
        "connect_timeout": f"{probe.timeout}s",
        "load_assignment": {
            "cluster_name": probe.cluster,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": Address(probe.address, probe.port).json()}}
                    ]
                }
            ],
        },
    }
    match probe.speaks:
        case Speaks.TCP:
            made["health_checks"] = [asking(probe, {"tcp_health_check": {}})]
        case Speaks.GRPC:
            about = {"service_name": probe.service} if probe.service else {}
            made["health_checks"] = [asking(probe, {"grpc_health_check": about})]
            options["explicit_http_config"] = {"http2_protocol_options": {}}
        case Speaks.HTTPS:
            # As kubelet does, it takes any certificate.
            made["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {"@type": f"{TLS}.UpstreamTlsContext"},
            }
        case Speaks.HTTP:
            pass
    made["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
    }
    return made


def asking(probe: Probe, how: Json) -> Json:
    """Kubelet counts failures, so this counts to one."""
    return {
        "timeout": f"{probe.timeout}s",
        "interval": APART,
        "no_traffic_interval": APART,  # there never is any, and the default is a minute
        "healthy_threshold": 1,
        "unhealthy_threshold": 1,
        "reuse_connection": False,
        **how,
    }
