"""What operators have asked of a provider, as frozen values."""

from dataclasses import dataclass

from meshfed.catalog.model import Identity, Interception, ServiceName


@dataclass(frozen=True, slots=True)
class Attachment:
    """A machine, or each machine of a scale set, answers for a service: somebody said so."""

    resource: str  # the platform's own id, in lower case
    service: ServiceName
    port: int  # the service's
    target: int  # the application's
    identity: Identity | None = None
    interception: Interception = Interception.EXPLICIT
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.service}:{self.port} at {self.resource}"


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators have asked of one provider."""

    paused: bool = False
    accepted: frozenset[str] = frozenset()  # scopes whose doubted observation is to be believed
    settled: frozenset[tuple[str, str]] = frozenset()  # and those where a fault was, with it
    attached: tuple[Attachment, ...] = ()  # of all platforms
