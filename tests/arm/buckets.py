"""Azure's budgets for whoever reads a subscription, counted: what exceeds them is refused.

The Resource Manager lets one ask 250 times, and gives back 25 a second; Microsoft.Compute lets one
list machines 900 times, and gives back 300 on the minute (compute-throttling-limits).
"""

import asyncio
from dataclasses import dataclass, replace

from arm.direct import Direct
from meshfed.demo.arm.world import World
from meshfed.providers.azure.lists import Answer

READS = "x-ms-ratelimit-remaining-subscription-reads"
OF_RESOURCE = "x-ms-ratelimit-remaining-resource"
LISTS = "Microsoft.Compute/HighCostGetSubscriptionMaximum"
ANSWER = 0.05  # seconds that one takes


@dataclass
class Bucket:
    full: int
    back: int
    every: float  # seconds
    left: int = 0
    at: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.full

    def take(self, now: float) -> bool:
        times = int((now - self.at) // self.every)
        self.at += times * self.every
        self.left = min(self.full, self.left + times * self.back)
        self.left -= self.left > 0
        return self.left > 0


class Counted(Direct):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.reads = Bucket(250, 25, 1.0)
        self.lists = Bucket(900, 300, 60.0)
        self.listed = 0  # calls that listed machines
        self.refused = 0

    async def get(self, url: str) -> Answer:
        now = asyncio.get_running_loop().time()
        machines = "Microsoft.Compute/virtualMachines?" in url
        self.listed += machines
        if not self.reads.take(now) or (machines and not self.lists.take(now)):
            self.refused += 1
            return Answer(429, {"Retry-After": "60"}, b"{}")
        await asyncio.sleep(ANSWER)
        headers = {READS: str(self.reads.left)}
        headers |= {OF_RESOURCE: f"{LISTS};{self.lists.left}"} if machines else {}
        return replace(await super().get(url), headers=headers)
