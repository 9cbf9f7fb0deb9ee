"""A release of the chart in a cluster, by Helm's own engine; it is stored where `helm` looks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helm_python import Chart, Config, HelmError, HelmNotFoundError

from meshfed.federation.install.chart import RELEASE, Object, Values, archive, mistakes, rendered
from meshfed.federation.install.chart import Refused as Unfit
from meshfed.federation.settings import over


class Failed(Exception):
    """What the engine or the cluster said; one line."""


@dataclass(frozen=True, slots=True)
class Where:
    """A cluster by kubectl's rules, and the namespace in it."""

    namespace: str
    context: str = ""
    kubeconfig: Path | None = None

    @property
    def file(self) -> Path | None:
        """One file; of several the engine finds its way by itself."""
        named = os.environ.get("KUBECONFIG", "")
        return self.kubeconfig or (Path(named) if named and os.pathsep not in named else None)


class Release:
    """What is installed there, if it is."""

    def __init__(self, config: Config, chart: Chart, namespace: str) -> None:
        self._config = config
        self._chart = chart
        self._namespace = namespace

    def checked(self, values: Values) -> list[Object]:
        """What the values would make. Raises Unfit."""
        made = rendered(self._chart, values, self._namespace)
        if wrong := list(mistakes(made)):
            raise Unfit(*wrong)
        return made

    def values(self) -> Values | None:
        """What was said at the last install or upgrade; None: nothing is installed."""
        with _told():
            try:
                return self._config.get_values(RELEASE) or {}  # none is null
            except HelmNotFoundError:
                return None

    def manifest(self) -> str:
        with _told():
            return str(self._config.status(RELEASE)["manifest"])

    def install(self, values: Values) -> None:
        with _told():
            self._config.install(self._chart, RELEASE, values)

    def upgrade(self, values: Values) -> int:
        """Its new revision."""
        with _told():
            made = self._config.upgrade(self._chart, RELEASE, values, reset_values=True)
        return int(made["revision"])

    def uninstall(self) -> None:
        with _told():
            self._config.uninstall(RELEASE, ignore_not_found=True)


@contextmanager
def release(where: Where) -> Iterator[Release]:
    """Raises Failed."""
    with _told(), Chart.load_archive(archive()) as chart:
        path, context = where.file, where.context or None
        with Config(
            kubeconfig_path=path, kube_context=context, namespace=where.namespace
        ) as config:
            yield Release(config, chart, where.namespace)


def merged(before: Values, now: Values) -> Values:
    """What was said before, and over it what is said now."""
    return over(before, now)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except HelmError as error:
        raise Failed(" ".join(str(error).split())) from error
