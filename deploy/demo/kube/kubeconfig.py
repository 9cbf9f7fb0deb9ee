"""A kubeconfig that needs no other file."""

import base64
from collections.abc import Mapping
from pathlib import Path

from meshfed.demo.kube.objects import Object


def data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def kubeconfig(
    cluster: str, host: str, authority: Path, users: Mapping[str, Mapping[str, str]]
) -> Object:
    """A context for each user, of the same name; the first is the current one."""
    server = {"server": host, "certificate-authority-data": data(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": server}],
        "users": [{"name": name, "user": user} for name, user in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": cluster, "user": name}} for name in users
        ],
        "current-context": next(iter(users)),
    }
