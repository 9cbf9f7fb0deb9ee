"""Whether the applications on this machine are well, as its agent finds by asking them."""

import asyncio
from collections.abc import Sequence

import structlog

from meshfed.providers.asking import ask
from meshfed.providers.hysteresis import Verdict
from meshfed.providers.probe import Probe

HERE = "127.0.0.1"  # where its sidecar reaches it
PERIOD = 5.0  # seconds between two looks

log = structlog.get_logger()


class Probing:
    """Looks at applications again and again, and holds a verdict on each."""

    def __init__(self, probes: Sequence[str]) -> None:
        """Of those that are no probes nothing is held."""
        self._verdicts = {each: Verdict() for each in map(parsed, probes) if each}

    @property
    def failing(self) -> dict[int, str]:
        """Ports that are not well, and why."""
        return {probe.port: held.why for probe, held in self._verdicts.items() if held.why}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD)

    async def look(self) -> None:
        """Ask all of them once."""
        probes = list(self._verdicts)
        answers = await asyncio.gather(*(ask(probe, HERE) for probe in probes))
        for probe, why in zip(probes, answers, strict=True):
            self._verdicts[probe] = self._verdicts[probe].after(why and f"{probe}: {why}")


def parsed(text: str) -> Probe | None:
    try:
        return Probe.parse(text)
    except ValueError as error:
        log.warning("not probed", reason=str(error))
        return None
