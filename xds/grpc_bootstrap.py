"""What a gRPC application without a sidecar is started with (gRFCs A27, A36, A65)."""

from collections.abc import Mapping
from pathlib import PurePath

from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY, Address, Json

PROVIDER = "mesh"  # the certificate provider's instance: both sides of what is sent name it
LISTENER = "grpc|%s"
# How soon renewed files are shown to new connections. gRPC's own ten minutes suit longer lives.
REFRESH = "10s"


def grpc_bootstrap(*, node_id: str, identity: str, control_plane: str, folder: PurePath) -> Json:
    """The file that GRPC_XDS_BOOTSTRAP names; `folder` holds the certificate files.

    The control plane's address is host:port; raises ValueError when it is not.
    """
    Address.parse(control_plane)
    files: Mapping[str, str] = {
        "certificate_file": str(folder / CERTIFICATE),
        "private_key_file": str(folder / KEY),
        "ca_certificate_file": str(folder / BUNDLE),
        "refresh_interval": REFRESH,
    }
    return {
        "xds_servers": [
            {
                "server_uri": control_plane,
                "channel_creds": [{"type": "tls", "config": files}],
                "server_features": ["xds_v3"],
            }
        ],
        # For people who read it: the control plane goes by the certificate alone.
        "node": {"id": node_id, "cluster": identity},
        "certificate_providers": {PROVIDER: {"plugin_name": "file_watcher", "config": files}},
        "server_listener_resource_name_template": LISTENER,
    }


def listener_name(host: str, port: int) -> str:
    """What a server asks for that listens there."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return LISTENER.replace("%s", where)
