"""`meshfed bench`: the scenarios that were asked for, one after another, and what came of them."""

import asyncio
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from meshfed.federation.bench.figures import Figures, Json, lagged
from meshfed.federation.bench.given import Size
from meshfed.federation.bench.place import borrowed
from meshfed.federation.bench.scenarios import SCENARIOS
from meshfed.federation.bench.stage import Stage, staged
from meshfed.federation.demo.run import stoppable

SQLITE = "sqlite"
COLD, ROTATION = "cold-start", "certificate-rotation"
SHORT_LIFE = "30s"  # of certificates that are to be renewed while one watches


async def run(
    size: Size,
    names: Sequence[str],
    *,
    times: int,
    dialect: str,
    url: str,
    said: Callable[[str], None],
) -> list[Figures]:
    """Raises Broken, Unfit, Away; in a group where something else went on."""
    found: list[Figures] = []
    if usual := [name for name in names if name != ROTATION]:
        async with set_up(size, url, dialect, said, "24h") as stage:
            first = await watched(stage, COLD, times)
            await stage.start_envoys()
            for each in usual:
                said(each)
                found.append(first if each == COLD else await watched(stage, each, times))
    if ROTATION in names:
        async with set_up(size, url, dialect, said, SHORT_LIFE) as stage:
            await stage.crowd.connect()
            await stage.start_envoys()
            said(ROTATION)
            found.append(await watched(stage, ROTATION, times))
    return found


async def watched(stage: Stage, name: str, times: int) -> Figures:
    """A scenario, and how late the control plane's event loop was meanwhile."""
    before = await stage.lag()
    found = await SCENARIOS[name](stage, times)
    late = lagged(before, await stage.lag())
    return replace(found, more={**found.more, "loop_lag_ms": late})


@asynccontextmanager
async def set_up(
    size: Size, url: str, dialect: str, said: Callable[[str], None], lifetime: str
) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="meshfed-bench-") as name:
        said("the catalog is filled")
        at = f"sqlite:///{name}/meshfed.db" if url == SQLITE else url
        staging = staged(Path(name), size, url=at, dialect=dialect, lifetime=lifetime)
        async with borrowed(at), staging as stage:
            said("everyone connects")
            yield stage


def machine() -> Json:
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def measured(size: Size, names: Sequence[str], **how: object) -> list[Figures]:
    """As `run`; raises Stopped, too, once everything is taken down."""
    return asyncio.run(stoppable(run(size, names, **how)))  # type: ignore[arg-type]
