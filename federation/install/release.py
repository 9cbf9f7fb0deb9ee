"""The chart's release in a cluster, by Helm: what is there, what values would make, in and out."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meshfed.federation.install.chart import FOLDER, RELEASE, Refused, mistakes, objects, refusals

NONE = "release: not found"
PATIENCE = 600.0  # seconds, for a cluster that answers slowly


class Failed(Exception):
    """What Helm or the cluster said, or why Helm said nothing; one line."""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def why(self) -> str:
        """Without what Helm logs beside it."""
        return self.err.rpartition("Error: ")[2].strip()


class Rendered(msgspec.Struct):
    """Of what Helm prints in JSON."""

    manifest: str


@dataclass(frozen=True, slots=True)
class Where:
    """A cluster by kubectl's rules, and the namespace in it."""

    namespace: str
    context: str = ""
    kubeconfig: Path | None = None

    @property
    def flags(self) -> list[str]:
        flags = ["--namespace", self.namespace]
        flags += ["--kube-context", self.context] if self.context else []
        return flags + (["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else [])


@dataclass(frozen=True, slots=True)
class Values:
    """As they were given: a file, and over it one by one."""

    file: Path | None = None
    assigned: tuple[str, ...] = ()

    @property
    def flags(self) -> list[str]:
        return [
            *(["--values", str(self.file)] if self.file else []),
            *(part for each in self.assigned for part in ("--set", each)),
        ]


def helm(arguments: Sequence[str]) -> Ended:
    """Raises Failed where there is no Helm, and where it does not end."""
    try:
        ended = subprocess.run(
            ["helm", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except FileNotFoundError as error:
        why = "there is no `helm` here, which does this: https://helm.sh/docs/intro/install"
        raise Failed(why) from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"helm did not end within {PATIENCE:g} s") from error
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Release:
    """Each method raises Failed."""

    def __init__(self, where: Where) -> None:
        self._where = where

    def manifest(self) -> str | None:
        """All that is installed, as it was rendered; None: nothing is."""
        ended = self._ended("get", "manifest", RELEASE)
        if ended.code and NONE in ended.err:
            return None
        return self._told(ended)

    def install(self, values: Values) -> None:
        self._told(self._ended("install", RELEASE, str(FOLDER), *values.flags))

    def upgrade(self, values: Values) -> None:
        self._told(self._ended(*self._upgraded, *values.flags))

    def checked(self, values: Values, *, over: bool) -> None:
        """Nothing is written; `over`: what was said before holds where these say nothing.

        Raises Refused.
        """
        # On the server only what is there already is seen, such as CRDs that somebody else brought.
        act = (
            (*self._upgraded, "--dry-run=server")
            if over
            else ("install", RELEASE, str(FOLDER), "--dry-run=client")
        )
        ended = self._ended(*act, *values.flags, "--output", "json")
        if lines := refusals(ended.err):
            raise Refused(*lines)
        try:
            made = msgspec.json.decode(self._told(ended), type=Rendered)
        except msgspec.DecodeError as error:
            raise Failed(f"helm printed no release: {error}") from error
        if lines := tuple(mistakes(objects(made.manifest))):
            raise Refused(*lines)

    def uninstall(self) -> None:
        self._told(self._ended("uninstall", RELEASE, "--ignore-not-found"))

    @property
    def _upgraded(self) -> Sequence[str]:
        return ("upgrade", RELEASE, str(FOLDER), "--reset-then-reuse-values")

    def _ended(self, *arguments: str) -> Ended:
        return helm([*arguments, *self._where.flags])

    def _told(self, ended: Ended) -> str:
        if ended.code:
            raise Failed(" ".join(ended.why.split()))
        return ended.out
