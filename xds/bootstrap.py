"""What a sidecar is started with: its control plane, and the files that prove who it is."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePath

from meshfed.xds import measured

CERTIFICATE = "certificate.pem"
KEY = "key.pem"
BUNDLE = "bundle.pem"
CERTIFICATE_SDS = "certificate.sds.json"
BUNDLE_SDS = "bundle.sds.json"
CONTROL_PLANE = "xds"

Json = dict[str, object]
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# A listener that changes must not keep established connections for Envoy's default of ten minutes.
# Of two on one machine that can be restarted hot the second ends: both want the same socket.
ENVOY = (
    "envoy", "--disable-hot-restart", "--drain-time-s", "5", "--drain-strategy", "immediate",
)  # fmt: skip
LEVEL = "warning"  # of its log: at `info` it writes a line for each thing that it is told


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`host:port`, an IPv6 literal in brackets. Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 <= int(port) < 65536:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def json(self) -> Json:
        return {"socket_address": {"address": self.host, "port_value": self.port}}


def bootstrap(
    *,
    node_id: str,
    identity: str,
    control_plane: str,
    trust_domain: str,
    folder: PurePath,
    admin: str,
    bind: str,
) -> Json:
    """Envoy's bootstrap; `folder` holds the certificate files and those of `secret_files`.

    Addresses are host:port; raises ValueError when they are not. `bind`: where the sidecar takes
    in what comes from the mesh.
    """
    xds = cluster(Address.parse(control_plane), trust_domain, folder)
    pages = Address.parse(admin)
    return document(
        node_id=node_id,
        identity=identity,
        asked=grpc_service(),
        admin=pages,
        clusters=[xds],
        listeners=[measured.listener(bind)],
    )


def document(
    *,
    node_id: str,
    identity: str,
    asked: Json,
    admin: Address,
    clusters: list[Json],
    listeners: list[Json],
    patience: Json | None = None,
) -> Json:
    """What every sidecar's bootstrap has; `asked`: how it finds its control plane.

    `patience`: of a config source, how long it waits for what it is sent first.
    """
    ads: Json = {"ads": {}, "resource_api_version": "V3", **(patience or {})}
    return {
        # For people who read its admin page: the control plane goes by its credential alone.
        "node": {"id": node_id, "cluster": identity},
        "admin": {"address": admin.json()},
        "stats_config": measured.labels(identity),
        # A CONNECT to an HTTP service ends in a listener inside this Envoy.
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3"
                    ".InternalListener"
                },
            }
        ],
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                # Else each request carries 61 kB of the extensions this Envoy was built with.
                "set_node_on_first_message_only": True,
                "grpc_services": [asked],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        # How many calls went where: over the same connection, under the same credential.
        "cluster_manager": {
            "load_stats_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [asked],
            }
        },
        "static_resources": {
            "clusters": [*clusters, measured.pages(admin.json())],
            "listeners": listeners,
        },
    }


def grpc_service() -> Json:
    """How soon an Envoy asks again for a control plane that was away: by default up to 30 s."""
    again = {"retry_back_off": {"base_interval": "0.5s", "max_interval": "5s"}}
    return {"envoy_grpc": {"cluster_name": CONTROL_PLANE, "retry_policy": again}}


def cluster(where: Address, trust_domain: str, folder: PurePath) -> Json:
    return {
        "name": CONTROL_PLANE,
        "type": "STATIC" if literal(where.host) else "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CONTROL_PLANE,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where.json()}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": HTTP,
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # A control plane that lost power is noticed, and another one asked.
                        "connection_keepalive": {"interval": "30s", "timeout": "10s"}
                    }
                },
            }
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TLS}.UpstreamTlsContext",
                "common_tls_context": {
                    # As a client Envoy stops at 1.2 unless it is told otherwise.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [
                        from_file("own", folder, CERTIFICATE_SDS)
                    ],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [
                                {
                                    "san_type": "URI",
                                    "matcher": {"exact": control_plane_uri(trust_domain)},
                                }
                            ]
                        },
                        "validation_context_sds_secret_config": from_file(
                            "roots", folder, BUNDLE_SDS
                        ),
                    },
                },
            },
        },
    }


def secret_files(folder: PurePath) -> dict[str, Json]:
    """The files that lead Envoy to the certificate's own, and watch their folder for new ones."""
    certificate = {
        "certificate_chain": {"filename": str(folder / CERTIFICATE)},
        "private_key": {"filename": str(folder / KEY)},
        "watched_directory": {"path": str(folder)},
    }
    roots = {
        "trusted_ca": {"filename": str(folder / BUNDLE)},
        "watched_directory": {"path": str(folder)},
    }
    return {
        CERTIFICATE_SDS: secret({"name": "own", "tls_certificate": certificate}),
        BUNDLE_SDS: secret({"name": "roots", "validation_context": roots}),
    }


def secret(content: Json) -> Json:
    return {"resources": [{"@type": f"{TLS}.Secret", **content}]}


def from_file(name: str, folder: PurePath, file: str) -> Json:
    source = {"path_config_source": {"path": str(folder / file)}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def control_plane_uri(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}/meshfed/control-plane"


def literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
