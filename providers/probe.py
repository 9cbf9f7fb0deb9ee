"""What is looked at to know whether an application is well, as people write it."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

WRITTEN = re.compile(r"(http|tcp|grpc):(\d{1,5})(/[!-~]{0,100})?")
EXAMPLES = "http:8080/healthz, tcp:3306 or grpc:9090"


class Kind(StrEnum):
    """How it is asked."""

    HTTP = "http"  # GET: 200 to 399
    TCP = "tcp"  # a connection
    GRPC = "grpc"  # grpc.health.v1.Health/Check: SERVING


@dataclass(frozen=True, slots=True)
class Probe:
    """One application's port, at its own machine."""

    kind: Kind
    port: int
    path: str = ""  # of HTTP; of gRPC the service that is asked about, after a slash

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        found = WRITTEN.fullmatch(text)
        if not found or not 0 < int(found[2]) < 65536 or (found[1] == "tcp" and found[3]):
            raise ValueError(f"{text!r} is no probe, such as {EXAMPLES}")
        return cls(Kind(found[1]), int(found[2]), found[3] or "")

    def __str__(self) -> str:
        return f"{self.kind}:{self.port}{self.path}"


def misplaced(probes: Sequence[Probe], targets: Collection[int]) -> str:
    """Why these cannot look at what is served on those ports; nothing, where they can."""
    ports = [probe.port for probe in probes]
    for probe in probes:
        if probe.port not in targets:
            there = ", ".join(map(str, sorted(set(targets)))) or "none"
            return f"{probe}: its applications' ports are {there}"
        if ports.count(probe.port) > 1:
            return f"{probe}: another one looks at port {probe.port}"
    return ""


def reason(probe: Probe, why: str) -> str:
    """Why an endpoint is not well, as the mesh is told."""
    return f"{probe}: {why}"
