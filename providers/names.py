"""DNS names as addresses, each for as long as its answer says."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import structlog
from dns.asyncresolver import Resolver
from dns.exception import DNSException
from dns.rdatatype import RdataType
from dns.resolver import NXDOMAIN, NoAnswer, NoResolverConfiguration

from meshfed.providers.hostlist import is_literal
from meshfed.providers.observed import Answer

PATIENCE = 2.0  # seconds for one question, all servers and retries together
AGAIN = 5.0  # seconds until a question without an answer is asked again
FILE = 30.0  # seconds until /etc/hosts, which has no TTL, is read again
SHORTEST, LONGEST = 1.0, 3600.0  # what a TTL is held to
AT_ONCE = 50  # questions; a list of thousands of names must not flood its server

log = structlog.get_logger()


def hosts_file(text: str) -> dict[str, tuple[str, ...]]:
    """The names of /etc/hosts, which come before DNS as they do everywhere on the machine."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            found.setdefault(name.lower(), []).append(address)
    usable = {name: _one_family(addresses) for name, addresses in found.items()}
    return {name: addresses for name, addresses in usable.items() if addresses}


def _one_family(addresses: Iterable[str]) -> tuple[str, ...]:
    """IPv4 where there is any: both families of one host would be two endpoints."""
    every = sorted({ip_address(a).compressed for a in addresses if _is_usable(a)})
    return tuple(a for a in every if ":" not in a) or tuple(every)


def _is_usable(address: str) -> bool:
    """Whether it can be an endpoint's: one that Envoy refuses is refused with all the others."""
    if not is_literal(address):
        return False
    parsed = ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast)


def kept(before: Answer, now: Answer) -> Answer:
    """The last addresses stand while DNS does not answer."""
    return Answer(before.addresses, now.fault, failing=True) if now.failing else now


class Names:
    """Knows the addresses of names, and asks again when their time is over."""

    def __init__(
        self, resolver: Callable[[], Resolver] = Resolver, file: Path = Path("/etc/hosts")
    ) -> None:
        self._resolver = resolver
        self._file = file
        self._answers: dict[str, Answer] = {}
        self._due: dict[str, float] = {}
        self._more = asyncio.Event()
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def answers(self, names: frozenset[str]) -> Mapping[str, Answer]:
        """What is known of these names, and no longer of any others. Waits for new ones only."""
        for name in self._answers.keys() - names:
            del self._answers[name], self._due[name]
        new = names - self._answers.keys()
        if new:
            self._learn(await self._ask(new))
            self._more.set()
        return dict(self._answers)

    async def follow(self, wake: asyncio.Event) -> None:
        """Asks again whenever a time is over, for ever, and wakes whoever uses the answers."""
        while True:
            self._more.clear()
            now = asyncio.get_running_loop().time()
            said = await self._ask({name for name, at in self._due.items() if at <= now})
            if self._learn({name: said[name] for name in said.keys() & self._answers.keys()}):
                wake.set()
            rest = min(self._due.values(), default=now + FILE) - asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._more.wait()

    def _learn(self, said: Mapping[str, tuple[Answer, float]]) -> bool:
        """Takes answers in; whether any of them is another than before."""
        before = dict(self._answers)
        now = asyncio.get_running_loop().time()
        for name, (answer, seconds) in said.items():
            self._answers[name] = kept(before.get(name, Answer()), answer)
            self._due[name] = now + seconds
            if answer.failing and not before.get(name, Answer()).failing:
                log.warning("name not answered", name=name, reason=answer.fault)
        return self._answers != before

    async def _ask(self, names: Iterable[str]) -> dict[str, tuple[Answer, float]]:
        """The answer to each name, and for how many seconds it is good."""
        asked = sorted(names)
        if not asked:
            return {}
        local, resolver = await asyncio.to_thread(self._here)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(self._answer(name, local, resolver)) for name in asked]
        return {name: task.result() for name, task in zip(asked, asking, strict=True)}

    def _here(self) -> tuple[dict[str, tuple[str, ...]], Resolver | None]:
        """What this machine says of names and of where to ask; both may have been edited."""
        try:
            local = hosts_file(self._file.read_text(errors="replace"))
        except OSError:
            local = {}  # many containers have none
        try:
            return local, self._resolver()
        except (NoResolverConfiguration, ValueError):  # ValueError: a server that is no address
            return local, None

    async def _answer(
        self, name: str, local: Mapping[str, tuple[str, ...]], resolver: Resolver | None
    ) -> tuple[Answer, float]:
        if name in local:
            return Answer(local[name]), FILE
        if resolver is None:
            return Answer(fault="no DNS server is configured", failing=True), AGAIN
        async with self._asking:
            try:
                return await _resolve(resolver, name)
            except NXDOMAIN:
                return Answer(fault="there is no such name"), AGAIN
            except NoAnswer:
                return Answer(fault="the name has no address"), AGAIN
            except DNSException as error:
                why = f"DNS does not answer ({type(error).__name__})"
                return Answer(fault=why, failing=True), AGAIN


async def _resolve(resolver: Resolver, name: str) -> tuple[Answer, float]:
    """One family, as in `_one_family`. Raises DNSException."""
    try:
        said = await resolver.resolve(name, RdataType.A, lifetime=PATIENCE, search=True)
    except NoAnswer:
        said = await resolver.resolve(name, RdataType.AAAA, lifetime=PATIENCE, search=True)
    seconds = min(max(float(said.chaining_result.minimum_ttl), SHORTEST), LONGEST)
    addresses = _one_family(str(record) for record in said)
    none = "" if addresses else "the name has no address that can be connected to"
    return Answer(addresses, none), seconds
