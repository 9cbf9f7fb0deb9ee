"""Whether a kubeconfig is there and has the context that is named, before any cluster is asked."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from meshfed.providers.hostlist import nearest
from meshfed.providers.kubernetes.options import Where


def files(named: Path | None) -> str:
    """The file, or those of this user, as kubectl finds them; several with `:` in between."""
    own = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return str(named) if named else own


def lacking(where: Where, shown: Callable[[Path], str] = str) -> str:
    """`key: why` it would not be found; nothing where only its user can know. Raises nothing.

    Without a file that is named it is that of whoever runs `serve`, who may be somebody else.
    """
    if where.in_cluster:
        return ""
    paths = [Path(each) for each in files(where.kubeconfig).split(os.pathsep) if each]
    found = [each for each in paths if where.kubeconfig or each.exists()]
    contexts: list[str] = []
    current = ""
    for path in found:
        try:
            said = yaml.safe_load(path.read_text())
            contexts += _contexts(said)
            current = current or str(said.get("current-context") or "")
        except PermissionError:  # its owner alone may read it
            return ""
        except OSError as error:
            return f"kubeconfig: {shown(path)}: {error.strerror}"
        except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError):
            return f"kubeconfig: {shown(path)} is no kubeconfig"
    wanted, names = where.context or current, ", ".join(map(shown, found))
    if not found or wanted in contexts:
        return ""
    if not wanted:
        return f"context: missing: {names} has no current-context"
    return f"context: {wanted!r} is none of {names}; {nearest(wanted, contexts)}"


def _contexts(said: dict[str, list[dict[str, str]]]) -> Iterator[str]:
    return (each["name"] for each in said.get("contexts") or ())
