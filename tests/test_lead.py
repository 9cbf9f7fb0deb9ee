"""One replica leads: terms begin and end, and who gives no sign of life any more is found out."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry

from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.demo.control import until
from meshfed.federation.lead import Duty, Lead, Signs, host, replica
from meshfed.federation.presence import Presence


def test_each_life_of_a_process_has_a_name_and_a_host() -> None:
    one, other = replica(), replica()
    assert one != other
    assert host(one) == host(other) != ""


def test_only_news_of_a_replica_counts_whatever_its_clock_says() -> None:
    signs = Signs()
    assert not signs.gone({"a": "1970", "b": "2100"}, 0.0)
    assert not signs.gone({"a": "1971", "b": "2100"}, 10.0)
    assert signs.gone({"a": "1972", "b": "2100"}, 10.5) == {"b"}
    assert not signs.gone({"a": "1972"}, 20.0)
    assert not signs.gone({"a": "1972", "b": "2100"}, 20.2)  # b came back, a is quiet for 9.7 s


class Replica:
    """One on a catalog, and when it leads."""

    def __init__(self, name: str, catalog: Catalog) -> None:
        self.catalog = catalog
        self.metrics = Metrics(registry := CollectorRegistry())
        self.registry = registry
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.lead = Lead(name, catalog, Presence(self.metrics), self.metrics, self.duties)

    def duties(self, led: Catalog) -> Iterable[Duty]:
        return (self.observe(led),)

    async def observe(self, led: Catalog) -> None:
        self.began.set()
        try:
            while True:
                await led.configure("shop.example", permissive=False)
                await asyncio.sleep(0.01)
        finally:
            self.ended.set()

    async def follows(self) -> bool:
        return self.lead.leader.term.replica != self.lead.name

    @property
    def leads(self) -> float | None:
        return self.registry.get_sample_value("meshfed_leader")


@asynccontextmanager
async def running(name: str, url: str) -> AsyncIterator[Replica]:
    with closing(Catalog(url)) as catalog:
        made = Replica(name, catalog)
        task = asyncio.create_task(made.lead.run())
        try:
            async with asyncio.timeout(10):
                yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_on_one_machine_the_last_that_starts_leads_and_the_others_wait(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    migrate(url)
    async with running("first", url) as first:
        await first.began.wait()
        assert first.leads == 1
        async with running("second", url) as second:
            await second.began.wait()
            await first.ended.wait()
            first.began.clear()
            await until("what it hears of the second", first.follows)
            assert first.leads == 0
        await first.catalog.leave("second")
        await first.began.wait()
        assert first.lead.leader.term.epoch == 3
