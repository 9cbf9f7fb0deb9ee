"""What a machine is answered. Both sides read it, and a small agent has no room for pydantic."""

from dataclasses import dataclass, field


def said(description: str) -> dict[str, str]:
    """For OpenAPI."""
    return {"description": description}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine needs to be in the mesh; its key it has already."""

    name: str
    identity: str
    trust_domain: str
    certificate: str = field(metadata=said("PEM, its own first"))
    bundle: str = field(metadata=said("PEM: the roots of the mesh"))
    xds: str = field(
        metadata=said("host:port of the control plane; no host: the one that was asked")
    )
    bind: str = field(metadata=said("where its sidecar listens for the mesh"))
    probes: tuple[str, ...] = field(
        default=(), metadata=said("what its agent looks at, as http:8080/healthz")
    )
    interception: str = field(
        default="explicit", metadata=said("as which it is registered: explicit or transparent")
    )
    ports: tuple[int, ...] = field(
        default=(), metadata=said("of its applications; none for who is in the mesh already")
    )


@dataclass(frozen=True, slots=True)
class Leased:
    """What an agent is told when it is heard."""

    lease: float = field(metadata=said("seconds for which that holds: come again after a third"))
