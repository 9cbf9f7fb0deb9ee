"""The demo's control plane: a `meshfed serve` of its own, asked over its admin API."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping

from meshfed.federation.demo import envoys
from meshfed.federation.demo.folder import Folder
from meshfed.federation.demo.measure import Edit, Unexpected
from meshfed.federation.demo.processes import Broken

LOOK_AGAIN = 0.05  # seconds: other processes' readiness has no event to wait for
STARTED_WITHIN = 30.0
ACKNOWLEDGED_WITHIN = 15.0


def command(folder: Folder) -> tuple[str, ...]:
    main = "meshfed.federation.cli.main"
    return (sys.executable, "-m", main, "serve", "--config", str(folder.config))


def moment(value: object) -> float:
    """Seconds since the epoch."""
    if isinstance(value, int | float):
        return float(value)
    raise Unexpected(f"{value!r} is not a time")


def edit(renamed: float, answer: Mapping[str, object]) -> Edit:
    """What /v1/revisions/N says of the revision that an edit became."""
    return Edit(renamed, moment(answer["committed_at"]), moment(answer["last_ack_at"]))


class Control:
    """The admin API of the demo's own control plane."""

    def __init__(self, folder: Folder) -> None:
        host, _, port = folder.admin.rpartition(":")
        self.host, self.port = host, int(port)

    async def get(self, path: str, seconds: float = 5.0) -> tuple[int, str]:
        return await asyncio.to_thread(envoys.get, self.host, self.port, path, seconds)

    async def ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def revision(self) -> int:
        """The newest one."""
        status, text = await self.get("/v1/revisions/current")
        if status != 200:
            raise Broken(f"the control plane names no revision: {status} {text}")
        return int(json.loads(text)["revision"])

    async def in_sync(self) -> int:
        """How many connected proxies have everything; 0 while it does not answer."""
        status, text = await self.get("/v1/proxies")
        if status != 200:
            return 0
        return sum(proxy["behind"] is None for proxy in json.loads(text))

    async def acknowledged(self, revision: int, renamed: float) -> Edit:
        """Wait until every proxy has a revision."""
        path = f"/v1/revisions/{revision}?wait={ACKNOWLEDGED_WITHIN:.0f}"
        status, text = await self.get(path, ACKNOWLEDGED_WITHIN + 5)
        if status != 200:
            raise Broken(f"revision {revision} did not reach every proxy: {status} {text}")
        return edit(renamed, json.loads(text))

    async def after(self, act: Callable[[], float]) -> Edit:
        """Make an edit, and wait until the revision that it becomes has reached everyone."""
        before = await self.revision()
        return await self.acknowledged(before + 1, act())


async def until(what: str, true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for another process. Raises Broken when that takes too long."""
    try:
        async with asyncio.timeout(STARTED_WITHIN):
            while not await true():  # noqa: ASYNC110  # another process has no event to wait for
                await asyncio.sleep(LOOK_AGAIN)  # it is another process
    except TimeoutError:
        raise Broken(f"{what} took more than {STARTED_WITHIN:.0f} s") from None
