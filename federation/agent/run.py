"""The agent as a whole: what it does at the same time, and how it ends."""

import asyncio
import os
import signal
from pathlib import Path

import structlog

from meshfed.federation.agent.alone import Another, alone
from meshfed.federation.agent.envoy import NoEnvoy, Sidecar, binary
from meshfed.federation.agent.events import Watching, azure
from meshfed.federation.agent.intercepting import Intercepted, Intercepting, aside
from meshfed.federation.agent.probing import Probing
from meshfed.federation.agent.renewal import Renewal
from meshfed.federation.agent.reporting import LAST, TICK, Reporting
from meshfed.federation.capture import OUT
from meshfed.federation.join.imds import IMDS
from meshfed.federation.join.papers import JOINED, Papers, Unjoinable
from meshfed.xds.bootstrap import LEVEL

SETTLE = 1.0  # seconds for callers to hear that it takes no new calls
STOPPING = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


class CannotStart(Exception):
    """One line for people, who can do something about it."""


def run(folder: Path, imds: str = "", level: str = LEVEL) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart.

    `imds`: Azure's service that announces events; none is asked elsewhere than on Azure. `level`:
    of its Envoy's log.
    """
    try:
        envoy, papers = binary(), Papers.read(folder)
        if papers is None:
            raise CannotStart(f"{folder}: nothing of joining is there: `meshfed join` comes first")
        said = Intercepted.needed(folder, papers)
        if said and os.geteuid():
            raise CannotStart("transparent interception is root's: run the agent as root")
        aside(said)
        with alone(folder):
            user = said.group if said else None
            sidecar = Sidecar(envoy, folder, user, level)
            announces = imds or (IMDS if azure() else "")
            asyncio.run(_run(sidecar, folder, papers, said, announces))
    except (NoEnvoy, Unjoinable, Another) as why:
        raise CannotStart(str(why)) from why
    except OSError as error:
        raise CannotStart(f"{error.filename or folder}: {error.strerror}") from error


async def left(papers: Path) -> None:
    """Once they are gone: `meshfed leave` has taken them."""
    while await asyncio.to_thread(papers.exists):  # noqa: ASYNC110  # another process takes them
        await asyncio.sleep(TICK)


async def last_word(reporting: Reporting) -> bool:
    """Whether the control plane has heard that this machine ends."""
    try:
        async with asyncio.timeout(LAST):
            return await reporting.drained("agent", "its agent is stopping")
    except TimeoutError:
        return False


async def _run(
    sidecar: Sidecar, folder: Path, papers: Papers, said: Intercepted | None, imds: str
) -> None:
    stop = asyncio.Event()
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    probing = Probing(papers.probes)
    await probing.look()
    reporting = Reporting(folder, lambda: probing.failing, sidecar.unready)
    intercepting = Intercepting(folder) if said else None

    async def leave() -> None:
        await left(folder / JOINED)
        log.info("left", reason=f"{folder}: nothing of joining is there any more")
        stop.set()

    async with asyncio.TaskGroup() as tasks:
        renewal = Renewal(folder, reporting.again)
        parts = [sidecar.run(), renewal.run(), probing.run(), reporting.run(), leave()]
        if imds:
            parts.append(Watching(imds, reporting, sidecar.busy).run())
        if intercepting:
            parts.append(intercepting.run())
        running = [tasks.create_task(part) for part in parts]
        await stop.wait()
        log.info("stopping")
        if await last_word(reporting):
            await asyncio.sleep(SETTLE)
        if intercepting:
            # It drains for longer than it listens. What comes in is refused from then on: its
            # application would not understand who is of the mesh.
            await intercepting.released([OUT])
        await sidecar.stop()
        for task in running:
            task.cancel()
    if intercepting:
        await intercepting.released()
    log.info("stopped")
