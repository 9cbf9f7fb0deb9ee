"""The agent as a whole: what it does at the same time, and how it ends."""

import asyncio
import signal
from pathlib import Path

import structlog

from meshfed.federation.agent.envoy import NoEnvoy, Sidecar, binary
from meshfed.federation.agent.renewal import Renewal
from meshfed.federation.join.machine import Papers, Unjoinable

STOPPING = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


class CannotStart(Exception):
    """One line for people, who can do something about it."""


def run(folder: Path) -> None:
    """Until SIGTERM or SIGINT. Raises CannotStart."""
    try:
        envoy, papers = binary(), Papers.read(folder)
    except (NoEnvoy, Unjoinable) as why:
        raise CannotStart(str(why)) from why
    if papers is None:
        raise CannotStart(f"{folder}: nothing of joining is there: `meshfed join` comes first")
    asyncio.run(_run(envoy, folder))


async def _run(envoy: str, folder: Path) -> None:
    stop = asyncio.Event()
    for number in STOPPING:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sidecar = Sidecar(envoy, folder)

    async def renew() -> None:
        await Renewal(folder).run()
        log.info("left", reason=f"{folder}: nothing of joining is there any more")
        stop.set()

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part) for part in (sidecar.run(), renew())]
        await stop.wait()
        log.info("stopping")
        await sidecar.stop()
        for task in running:
            task.cancel()
    log.info("stopped")
