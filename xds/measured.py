"""What a sidecar lets everyone measure: its counters for Prometheus, and nothing else of its pages.

And by what they are labelled. Names of services have dots, where Envoy's own labels would end.
"""

from typing import Final

METRICS_PORT = 15010
ADMIN_PAGES = "admin"
LISTENER = "metrics"
PATH = "/stats/prometheus"

Json = dict[str, object]

NAME = r"[a-z0-9-]+\.[a-z0-9-]+"  # of a service
# The first group is taken out of the name of the metric, the second is the label's value.
LABELS: Final = {
    # Of clusters through which this sidecar calls (catalog.reach.Target).
    "service": rf"^cluster\.(({NAME})(?:>{NAME})?\|\d+(?:\|[0-9a-f]+)?\.)",
    "version": rf"^cluster\.{NAME}(>({NAME}))\|",
    "port": rf"^(?:cluster|http)\.(?:local\||inbound\|)?{NAME}(?:>{NAME})?(\|(\d+))",
    # Of what is behind it, and of who calls that.
    "served": rf"^(?:cluster\.|http\.)((?:local|inbound)\|({NAME})\|\d+\.)",
    "envoy.cluster_name": r"^cluster\.((xds|admin|tunnel|passthrough|probe\|[^.]+)\.)",
    "envoy.http_conn_manager_prefix": r"^http\.((outbound|tunnel|admin|metrics|probes)\.)",
    # Else each of them would be metrics of its own.
    "envoy.tcp_prefix": r"^tcp\.((.+)\.)\w+$",
    "envoy.secret": r"^(?:sds|.*\.ssl\.certificate)\.((.+)\.)\w+$",
}
# Envoy knows by itself how these are found.
FOUND = ("envoy.response_code", "envoy.response_code_class", "envoy.listener_address")


def labels(identity: str) -> Json:
    """Envoy's stats_config; everything is labelled with whose it is."""
    return {
        "use_all_default_tags": False,
        "stats_tags": [
            {"tag_name": "identity", "fixed_value": identity},
            *({"tag_name": name, "regex": regex} for name, regex in LABELS.items()),
            *({"tag_name": name} for name in FOUND),
        ],
    }


def listener(bind: str) -> Json:
    """Bound as the inbound listener is; one path, and only to read it."""
    address: Json = {"address": bind, "port_value": METRICS_PORT}
    if bind == "::":
        address["ipv4_compat"] = True
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    route = {"match": {"path": PATH, "headers": [get]}, "route": {"cluster": ADMIN_PAGES}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": LISTENER,
        "route_config": {
            "virtual_hosts": [{"name": LISTENER, "domains": ["*"], "routes": [route]}],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": LISTENER,
        "address": {"socket_address": address},
        "filter_chains": [{"filters": [http]}],
    }


def pages(admin: Json) -> Json:
    """The cluster behind it: the admin interface, which listens on loopback alone."""
    return {
        "name": ADMIN_PAGES,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_PAGES,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": admin}}]}],
        },
    }
