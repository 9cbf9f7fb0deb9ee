"""The mesh that is measured, as values: services, their endpoints, and who may call whom."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from msgspec import structs

from meshfed.catalog.model import (
    Backend,
    Endpoint,
    Evidence,
    HttpMatch,
    Identity,
    Locality,
    ObjectName,
    Observation,
    Platform,
    Policy,
    Port,
    RouteGroup,
    Rule,
    Service,
    ServiceName,
    Specified,
    TrafficSplit,
    TrafficTarget,
    Workload,
)

DOMAIN = "bench.example"
NAMESPACE = "bench"
PROVIDER = "bench"
KIND = "bench"
PORT, TARGET = 80, 8080
ROUTES = "all"
ZONES = ("eu-1a", "eu-1b", "eu-1c")
FRONT = ServiceName("front", NAMESPACE)  # the root of a split that all may call

located = lru_cache(16)(Locality)


@dataclass(frozen=True, slots=True)
class Size:
    """How large the mesh is. Raises ValueError, `option: why`."""

    services: int = 1_000
    endpoints: int = 100_000  # all services have as many
    proxies: int = 1_000  # that are connected: workloads of the first services
    identities: int = 100  # of those proxies: so many services have them
    clusters: int = 100  # services that each of them may call
    envoys: int = 0  # of the proxies

    def __post_init__(self) -> None:
        if self.endpoints % self.services:
            raise ValueError("endpoints: not as many for each service")
        if not 1 <= self.identities <= self.services - 2:
            raise ValueError(f"identities: at most {self.services - 2}, two services less")
        if self.proxies > (most := self.identities * self.each):
            raise ValueError(f"proxies: {self.identities} identities have {most} endpoints")
        if self.envoys >= self.proxies:
            raise ValueError(f"envoys: fewer than {self.proxies}: one proxy is simulated, at least")
        if not 3 <= self.clusters <= self.services:
            raise ValueError(f"clusters: not between 3 and {self.services} services")

    def json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def each(self) -> int:
        return self.endpoints // self.services

    @property
    def hot(self) -> int:
        """The service that all may call."""
        return self.services - 1

    @property
    def rare(self) -> int:
        """The service that only the first identity may call."""
        return self.services - 2

    @property
    def holders(self) -> int:
        """Proxies that may call the rare one."""
        return len(range(0, self.proxies, self.identities))

    def callers(self) -> dict[int, tuple[int, ...]]:
        """Who may call a service: the numbers of identities, by the service's."""
        found: dict[int, list[int]] = defaultdict(list)
        for who in range(self.identities):
            others = self.clusters - 1 - (who == 0)
            called = {(7 * who + n) % self.rare for n in range(others)}
            for service in called | {self.hot} | ({self.rare} if who == 0 else set()):
                found[service].append(who)
        return {service: tuple(found[service]) for service in sorted(found)}

    def names(self) -> list[str]:
        """The workloads whose proxies are connected; the real Envoys' are the last."""
        where = (divmod(n, self.identities) for n in range(self.proxies))
        return [workload(service, n) for n, service in where]

    def bind(self, service: int, n: int) -> str:
        """Where its proxy listens: real Envoys run here, each on a loopback address of its own."""
        proxy = n * self.identities + service
        which = proxy - (self.proxies - self.envoys)
        if service >= self.identities or not 0 <= which < self.envoys:
            return "0.0.0.0"
        return f"127.1.{which // 250}.{which % 250 + 1}"


def named(service: int) -> ServiceName:
    return ServiceName(f"app-{service}", NAMESPACE)


@lru_cache(maxsize=1 << 14)
def identity(service: int) -> Identity:
    return Identity(f"app-{service}", NAMESPACE)


def workload(service: int, n: int) -> str:
    return f"app-{service}-{n}"


def scope_of(service: int) -> str:
    return f"{PROVIDER}/app-{service}"


def observed(size: Size) -> list[Observation]:
    """A scope for each service, as a cluster is observed."""
    return [observation(size, n) for n in range(size.services)]


def observation(
    size: Size, service: int, *, weight: int = 1, first: int = 0, lacking: int = 0
) -> Observation:
    """One service; `weight` is of its first endpoint.

    Its endpoints are those of the numbers from `first` on; that many are `lacking` at the end.
    """
    numbers = range(first, first + size.each - lacking)
    members = [member(size, service, n) for n in numbers]
    endpoints = [endpoint for _, endpoint in members]
    endpoints[:1] = [structs.replace(each, weight=weight) for each in endpoints[:1]]
    return Observation(
        scope_of(service),
        frozenset({Service(named(service), (Port(PORT),))}),
        frozenset(each for each, _ in members),
        frozenset(endpoints),
        evidence=Evidence.STATED,
    )


@lru_cache(maxsize=1 << 10)
def member(size: Size, service: int, n: int) -> tuple[Workload, Endpoint]:
    """One of a service's endpoints; those from `size.each` on are not there at the beginning."""
    generation, place = divmod(n, size.each)
    number = generation * size.endpoints + service * size.each + place
    where, who = scope_of(service), identity(service)
    located_at = located("eu-1", ZONES[n % 3])
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    one = Workload(
        workload(service, n),
        PROVIDER,
        where,
        Platform.VM,
        who,
        (address,),
        bind=size.bind(service, n),
        locality=located_at,
    )
    two = Endpoint(
        named(service),
        PORT,
        address,
        TARGET,
        one.id,
        PROVIDER,
        where,
        Platform.VM,
        who,
        locality=located_at,
    )
    return one, two


def specified(size: Size, *, shifted: bool = False, denied: bool = False) -> Specified:
    """Who may call whom, and a split of `front`.

    `shifted`: the split's weights are others; `denied`: the first identity may not call rare.
    """
    return Specified(
        PROVIDER, tuple((each, "bench") for each in policies(size, shifted=shifted, denied=denied))
    )


def policies(size: Size, *, shifted: bool, denied: bool) -> Iterator[Policy]:
    yield RouteGroup(ObjectName(NAMESPACE, ROUTES), (HttpMatch("all"),))
    rules = (Rule("HTTPRouteGroup", ROUTES),)
    for service, callers in size.callers().items():
        if denied and service == size.rare:
            continue
        sources = frozenset(map(identity, callers))
        yield TrafficTarget(
            ObjectName(NAMESPACE, f"call-app-{service}"), identity(service), sources, rules
        )
    weights = (1, 2) if shifted else (2, 1)
    backends = zip((size.hot, 0), weights, strict=True)
    yield TrafficSplit(
        ObjectName(NAMESPACE, "front"),
        FRONT,
        tuple(Backend(named(service), weight) for service, weight in backends),
    )
