"""What is done to a mesh while it is measured."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse

from meshfed.federation.bench import given
from meshfed.federation.bench.crowd import Connected
from meshfed.federation.bench.figures import Bare, Figures, Json, Round, percentile, spread
from meshfed.federation.bench.stage import Stage
from meshfed.federation.demo.processes import Broken
from meshfed.xds.resource import Type

APART = 0.5  # seconds between changes: all is at rest by then, and what the catalog is told written
PROBED = 0.02  # seconds between two questions to the health endpoint
SLOW = 100  # one proxy in so many stops reading
STEP = 0.1  # seconds between two replacements of a rolling deploy

NOTHING = b64encode(DeltaDiscoveryResponse(type_url=Type.CLUSTER).SerializeToString()).decode()

Commit = tuple[int, float]  # a revision, and when by the monotonic clock
Change = Callable[[int], Awaitable[Commit]]


async def changed(stage: Stage, turn: int, change: Change, *, floor: bool = True) -> Round:
    """One change until all have it, and then the same bytes without a control plane."""
    await stage.crowd.happened()
    await stage.crowd.keep()
    cpu = stage.meter.cpu()
    revision, committed = await change(turn)
    await stage.settled(revision)
    spent = stage.meter.cpu() - cpu
    happened = await stage.crowd.happened()
    bodies = await stage.crowd.kept()
    acks = [at - committed for at in happened.last()]
    bare = None
    if floor and bodies:
        bare = await fanned(stage, bodies, len(happened.acks))
    await asyncio.sleep(APART)
    return Round(acks, spent, happened, bare)


async def fanned(stage: Stage, bodies: list[str], streams: int) -> Bare:
    crowd = stage.floor.crowd
    await crowd.happened()
    seconds = cpu = 0.0
    for body in bodies:
        began, used = await stage.floor.push([body], streams)
        seconds += (await crowd.happened()).last()[-1] - began
        cpu += used
    return Bare(seconds, cpu, streams * len(bodies))


async def repeated(stage: Stage, name: str, change: Change, times: int, **more: object) -> Figures:
    await changed(stage, -1, change)  # nobody counts the first
    rounds = [await changed(stage, turn, change) for turn in range(times)]
    return Figures(name, rounds, stage.meter.peak(), dict(more))


# One endpoint


async def one_endpoint(stage: Stage, times: int) -> Figures:
    """The weight of an endpoint that everyone holds."""
    return await repeated(stage, "one-endpoint", weighing(stage, stage.size.hot), times)


async def few_holders(stage: Stage, times: int) -> Figures:
    """The same of one that few hold."""
    found = await repeated(stage, "few-holders", weighing(stage, stage.size.rare), times)
    others = sum(len(each.happened.acks) for each in found.rounds) - times * stage.size.holders
    return Figures(found.name, found.rounds, found.peak_kb, {"others_told": others})


def weighing(stage: Stage, service: int) -> Change:
    async def change(turn: int) -> Commit:
        seen = given.observation(stage.size, service, weight=3 + turn)
        return await stage.observe(seen)

    return change


# Many endpoints


async def rolling_deploy(stage: Stage, times: int) -> Figures:
    """All endpoints of a service that everyone holds are replaced, one after another."""
    del times
    size, revisions = stage.size, []
    await stage.crowd.happened()
    cpu = stage.meter.cpu()
    began = time.monotonic()
    for n in range(size.each):
        seen = given.observation(size, size.hot, first=n + 1)
        revision, committed = await stage.observe(seen)
        revisions.append(revision)
        await asyncio.sleep(max(0.0, began + (n + 1) * STEP - time.monotonic()))
    await stage.settled(revisions[-1])
    spent = stage.meter.cpu() - cpu
    happened = await stage.crowd.happened()
    # Not while it goes on: who waits for a hundred answers is late with the next change.
    behind = [await stage.settled(revision) for revision in revisions]
    back = await stage.observe(given.observation(size, size.hot))
    await stage.settled(back[0])
    closest = happened.closest()
    return Figures(
        "rolling-deploy",
        [Round([at - committed for at in happened.last()], spent, happened)],
        stage.meter.peak(),
        {
            "seconds": round(STEP * size.each, 1),
            "replaced": size.each,
            "behind_ms": spread(each / 1000 for each in behind) | {"most": round(max(behind), 1)},
            "closest_pushes_ms": closest and round(1000 * closest, 2),
        },
    )


async def mass_removal(stage: Stage, times: int) -> Figures:
    """Half of the endpoints of a service that everyone holds leave at once, and come back."""

    async def change(turn: int) -> Commit:
        lacking = stage.size.each // 2 if turn % 2 else 0
        return await stage.observe(given.observation(stage.size, stage.size.hot, lacking=lacking))

    return await repeated(stage, "mass-removal", change, times + times % 2)


# Shape


async def policy(stage: Stage, times: int) -> Figures:
    """One identity may no longer call one service, and may again."""

    async def change(turn: int) -> Commit:
        return await stage.specify(given.specified(stage.size, denied=bool(turn % 2)))

    before = await views(stage)
    found = await repeated(stage, "policy", change, times + times % 2)
    built = (await views(stage) - before) / (len(found.rounds) + 1)
    return Figures(found.name, found.rounds, found.peak_kb, {"views_built_per_change": built})


async def split(stage: Stage, times: int) -> Figures:
    """The weights of a split that everyone follows."""

    async def change(turn: int) -> Commit:
        return await stage.specify(given.specified(stage.size, shifted=bool(turn % 2)))

    return await repeated(stage, "split", change, times + times % 2)


async def views(stage: Stage) -> float:
    return await stage.metric("meshfed_views_built_total")


# Streams


async def cold_start(stage: Stage, times: int) -> Figures:
    """Everyone comes at once to a control plane that just started, with nothing."""
    del times
    before, floored = stage.meter.resident(), stage.floor.meter.resident()
    async with probing(stage) as probed:
        figures = await came(stage, "cold-start")
    alone = await accepted(stage, greeted=False)
    bare = (stage.floor.meter.resident() - floored) / stage.size.proxies
    each = (stage.meter.resident() - before) / stage.size.proxies
    memory: Json = {
        "rss_kb_per_proxy": round(each, 1),
        "floor_rss_kb_per_proxy": round(bare, 1),
        "rss_ratio": round(each / bare, 2),
        "floor_accept_ms": round(1000 * alone.taken, 1),
        "health_ms": spread(probed),
    }
    return Figures(figures.name, figures.rounds, stage.meter.peak(), figures.more | memory)


async def reconnect_storm(stage: Stage, times: int) -> Figures:
    """Every connection ends at once, and everyone comes back; nothing has changed."""
    rounds: list[Round] = []
    probed: list[float] = []
    alone = []
    for _ in range(min(times, 5)):
        await stage.crowd.drop()
        await asyncio.sleep(2 * APART)
        async with probing(stage) as answers:
            rounds += (await came(stage, "")).rounds
        probed += answers
        alone.append((await accepted(stage, greeted=False)).taken)
    more: Json = {
        "health_ms": spread(probed) | {"asked": len(probed)},
        "floor_accept_ms": spread(alone),
    }
    return Figures("reconnect-storm", rounds, stage.meter.peak(), more)


async def came(stage: Stage, name: str) -> Figures:
    await stage.crowd.happened()
    await stage.crowd.keep()
    cpu = stage.meter.cpu()
    connected = await stage.crowd.connect()
    spent = stage.meter.cpu() - cpu
    happened = await stage.crowd.happened()
    bodies = await stage.crowd.kept()
    acks = [at - connected.began for at in connected.whole]
    bare = stage.floor.meter.cpu()
    floor = await accepted(stage, bodies)
    bare = stage.floor.meter.cpu() - bare
    pushes = len(bodies) * stage.size.proxies
    return Figures(name, [Round(acks, spent, happened, Bare(floor.taken, bare, pushes))], 0, {})


async def accepted(
    stage: Stage, bodies: list[str] | None = None, *, greeted: bool = True
) -> Connected:
    """Everyone comes to the bare server; with the same bytes, or with one message of ten."""
    await stage.floor.crowd.drop()
    await asyncio.sleep(APART)
    await stage.floor.greet(bodies if greeted and bodies else [NOTHING])
    return await stage.floor.crowd.connect()


@asynccontextmanager
async def probing(stage: Stage) -> AsyncIterator[list[float]]:
    """How long the health endpoint took to answer, again and again; seconds."""
    taken: list[float] = []

    async def probe() -> None:
        while True:
            began = time.monotonic()
            status, _ = await stage.control.get("/healthz")
            taken.append(time.monotonic() - began)
            if status != 200:
                raise Broken(f"the health endpoint answered {status}")
            await asyncio.sleep(PROBED)

    probes = asyncio.create_task(probe())
    try:
        yield taken
    finally:
        probes.cancel()


async def slow_readers(stage: Stage, times: int) -> Figures:
    """One proxy in a hundred stops reading; what do the others notice?"""
    change = weighing(stage, stage.size.hot)

    async def told(turn: int, every: int) -> Round:
        await stage.crowd.happened()
        cpu = stage.meter.cpu()
        _, committed = await change(turn)
        await stage.crowd.reached(stage.crowd.shares(every=every))
        spent = stage.meter.cpu() - cpu
        happened = await stage.crowd.happened()
        await asyncio.sleep(APART)
        return Round([at - committed for at in happened.last()], spent, happened)

    before = [await told(100 + turn, 0) for turn in range(times)]
    await stage.crowd.pause(SLOW)
    rounds = [await told(200 + turn, SLOW) for turn in range(times)]
    await stage.crowd.resume()
    usual, now = (
        percentile([ack for each in some for ack in each.acks], 0.99) for some in (before, rounds)
    )
    return Figures(
        "slow-readers",
        rounds,
        stage.meter.peak(),
        {
            "p99_ms": round(1000 * now, 1),
            "p99_without_ms": round(1000 * usual, 1),
            "p99_ratio": round(now / usual, 2),
        },
    )


async def certificate_rotation(stage: Stage, times: int) -> Figures:
    """Everyone's certificate is renewed; from the first proxy that has its new one."""
    rounds = []
    for _ in range(min(times, 3)):
        await stage.crowd.happened()
        cpu = stage.meter.cpu()
        await stage.crowd.reached(stage.crowd.shares())
        spent = stage.meter.cpu() - cpu
        await asyncio.sleep(APART)
        happened = await stage.crowd.happened()
        began = min(ack[0].at for ack in happened.acks.values())
        rounds.append(Round([at - began for at in happened.last()], spent, happened))
    return Figures("certificate-rotation", rounds, stage.meter.peak())


Scenario = Callable[[Stage, int], Awaitable[Figures]]

# In the order in which they are run: the first lets everyone connect.
SCENARIOS: dict[str, Scenario] = {
    "cold-start": cold_start,
    "one-endpoint": one_endpoint,
    "few-holders": few_holders,
    "rolling-deploy": rolling_deploy,
    "mass-removal": mass_removal,
    "policy": policy,
    "split": split,
    "slow-readers": slow_readers,
    "reconnect-storm": reconnect_storm,
    "certificate-rotation": certificate_rotation,  # with a control plane of its own: run.py
}
