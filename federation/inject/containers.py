"""What a pod is given: the sidecar, who brings traffic to it, and the pod's credential."""

import json
from collections.abc import Sequence
from functools import lru_cache

from meshfed.federation.capture import USER
from meshfed.federation.inject.capture import script
from meshfed.federation.inject.decide import INIT, PROXY, TOKEN
from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.raw import Object
from meshfed.federation.inject.wishes import Wishes
from meshfed.xds.bootstrap import ENVOY, LEVEL, Address
from meshfed.xds.measured import METRICS_PORT
from meshfed.xds.pod_bootstrap import FIELDS, LIVE, PROBES_PORT, READY, Probe, pod_bootstrap

FOLDER = "/var/run/secrets/meshfed.io"
HOUR = 3600  # seconds a token is good for; kubelet replaces it after four fifths of that
STARTING = 120  # seconds until a sidecar that knows nothing of the mesh is started again
LEAVING = 5  # seconds that a classic one stays when all are told to end: others may still call
# Envoy's image has bash and no client of HTTP.
HOLD = f"""\
until exec 3<>/dev/tcp/127.0.0.1/15000 &&
  printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 &&
  read -r _ code _ <&3 && [ "$code" = 200 ]
do
  [ $SECONDS -lt {STARTING} ] || exit 1
  sleep 0.2
done 2>/dev/null
"""


def proxy(injection: Injection, wishes: Wishes, probes: Sequence[Probe], roots: str) -> Object:
    """The sidecar; others wait until it knows the mesh, native or classic."""
    text = bootstrap(Address.parse(injection.control_plane), roots, tuple(probes))
    made: Object = {
        "name": PROXY,
        "image": injection.image,
        "command": [ENVOY[0]],
        "args": [*ENVOY[1:], "--log-level", LEVEL, "--config-yaml", text],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in FIELDS.items()
        ],
        "ports": [{"name": "meshfed-metrics", "containerPort": METRICS_PORT}],
        "resources": wishes.resources,
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "startupProbe": {**asked(READY), "periodSeconds": 1, "failureThreshold": STARTING},
        "readinessProbe": {**asked(READY), "periodSeconds": 5},
        "livenessProbe": {**asked(LIVE), "periodSeconds": 10, "timeoutSeconds": 5},
        "volumeMounts": [{"name": TOKEN, "mountPath": FOLDER, "readOnly": True}],
    }
    if injection.sidecar is not Sidecar.CLASSIC:
        return {**made, "restartPolicy": "Always"}
    wait = {"exec": {"command": ["/bin/bash", "-c", HOLD]}}
    stay = {"exec": {"command": ["/bin/sleep", str(LEAVING)]}}
    return {**made, "lifecycle": {"postStart": wait, "preStop": stay}}


@lru_cache(maxsize=512)
def bootstrap(where: Address, roots: str, probes: tuple[Probe, ...]) -> str:
    """Kept: pods of one Deployment have the same, and it is most of the work of a review."""
    made = pod_bootstrap(control_plane=where, roots=roots, token=f"{FOLDER}/token", probes=probes)
    return json.dumps(made, separators=(",", ":"))


def asked(path: str) -> Object:
    return {"httpGet": {"path": path, "port": PROBES_PORT}}


def init(injection: Injection, wishes: Wishes) -> Object:
    """Who writes the rules into the pod's network, and ends."""
    return {
        "name": INIT,
        "image": injection.init_image,
        "command": ["/bin/sh", "-ec", script(wishes.capture)],
        "resources": wishes.resources,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def token(injection: Injection) -> Object:
    """The pod's credential: good for nobody but the control plane, and gone with the pod."""
    said = {"audience": injection.audience, "expirationSeconds": HOUR, "path": "token"}
    return {"name": TOKEN, "projected": {"sources": [{"serviceAccountToken": said}]}}
