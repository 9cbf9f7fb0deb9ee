"""What every provider promises, as a test suite: ours passes it, and yours can.

Subclass `ProviderContract` in a test file and override the fixture `platform`:

    class TestRack(ProviderContract):
        @pytest.fixture
        def platform(self, tmp_path: Path) -> RackOnDisk:
            return RackOnDisk(tmp_path)

It needs pytest and pytest-asyncio, so only tests import it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import pytest

from meshfed.catalog.model import Evidence, Observation
from meshfed.providers.provider import Provider

PATIENCE = 10.0  # seconds for one observation; a test that waits for longer has failed


class Platform(Protocol):
    """A platform of which the tests are the operator. It begins with at least one endpoint."""

    def provider(self) -> Provider:
        """A provider that observes this platform in one scope or more."""
        ...

    def change(self) -> None:
        """An endpoint appears in a scope that is there already."""
        ...

    def fail(self) -> None:
        """The platform cannot be read any more."""
        ...

    def mend(self) -> None:
        """It can be read again, and says what it said before it failed."""
        ...


class Watched:
    """A provider's observations, one after the other."""

    def __init__(self, provider: Provider, observations: AsyncIterator[Observation]) -> None:
        self.provider = provider
        self._observations = observations

    async def next(self) -> Observation:
        async with asyncio.timeout(PATIENCE):
            return await anext(self._observations)

    async def until(self, fault: bool) -> Observation:
        while True:
            seen = await self.next()
            if bool(seen.fault) is fault:
                return seen


@asynccontextmanager
async def watched(provider: Provider) -> AsyncIterator[Watched]:
    observations = provider.observe()
    async with aclosing(observations):  # type: ignore[type-var]  # an async generator, as all are
        yield Watched(provider, observations)


@pytest.mark.asyncio
class ProviderContract:
    """The promises, one test each."""

    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        raise NotImplementedError("override the fixture `platform`: see the top of this module")

    async def test_it_has_the_shape_of_a_provider(self, platform: Platform) -> None:
        provider = platform.provider()
        assert isinstance(provider, Provider)
        assert provider.name

    async def test_an_option_that_nobody_knows_is_refused_by_name(
        self, platform: Platform, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=r"^no-such-option: "):
            type(platform.provider())(name="x", options={"no-such-option": 1}, base=tmp_path)

    async def test_a_scope_begins_with_the_name_of_its_provider(self, platform: Platform) -> None:
        async with watched(platform.provider()) as seeing:
            seen = await seeing.next()
        assert seen.scope.startswith(f"{seeing.provider.name}/")
        own = (seeing.provider.name, seen.scope)
        assert {(w.provider, w.scope) for w in seen.workloads} <= {own}
        assert {(e.provider, e.scope) for e in seen.endpoints} <= {own}

    async def test_an_endpoint_belongs_to_a_workload_of_the_same_observation(
        self, platform: Platform
    ) -> None:
        async with watched(platform.provider()) as seeing:
            seen = await seeing.next()
        assert seen.endpoints
        workloads = {workload.id: workload for workload in seen.workloads}
        for endpoint in seen.endpoints:
            workload = workloads[endpoint.workload]
            assert endpoint.identity == workload.identity
            assert endpoint.interception is workload.interception
            assert endpoint.platform is workload.platform
            assert endpoint.network == workload.network
            assert endpoint.cluster == workload.cluster

    async def test_an_address_is_an_ip_literal(self, platform: Platform) -> None:
        async with watched(platform.provider()) as seeing:
            seen = await seeing.next()
        for endpoint in seen.endpoints:
            assert ip_address(endpoint.address).compressed == endpoint.address
            assert 1 <= endpoint.target <= 65535

    async def test_no_two_endpoints_or_workloads_are_the_same_one(self, platform: Platform) -> None:
        async with watched(platform.provider()) as seeing:
            seen = await seeing.next()
        assert len({endpoint.key for endpoint in seen.endpoints}) == len(seen.endpoints)
        assert len({workload.id for workload in seen.workloads}) == len(seen.workloads)
        assert len({service.name for service in seen.services}) == len(seen.services)

    async def test_two_looks_at_the_same_platform_are_equal(self, platform: Platform) -> None:
        async with watched(platform.provider()) as one, watched(platform.provider()) as other:
            assert await one.next() == await other.next()

    async def test_a_change_is_seen(self, platform: Platform) -> None:
        async with watched(platform.provider()) as seeing:
            before = await seeing.next()
            platform.change()
            after = await seeing.next()
        assert after.scope == before.scope
        assert {e.key for e in after.endpoints} > {e.key for e in before.endpoints}

    async def test_refresh_yields_the_scope_again_though_nothing_changed(
        self, platform: Platform
    ) -> None:
        async with watched(platform.provider()) as seeing:
            before = await seeing.next()
            await seeing.provider.refresh(before.scope)
            assert await seeing.next() == before

    async def test_refreshing_a_scope_that_is_not_there_does_no_harm(
        self, platform: Platform
    ) -> None:
        async with watched(platform.provider()) as seeing:
            before = await seeing.next()
            await seeing.provider.refresh(f"{seeing.provider.name}/no such scope")
            await seeing.provider.refresh(before.scope)
            assert await seeing.next() == before

    async def test_a_fault_is_an_observation_that_says_why_and_takes_nothing_away(
        self, platform: Platform
    ) -> None:
        async with watched(platform.provider()) as seeing:
            before = await seeing.next()
            platform.fail()
            seen = await seeing.until(fault=True)
        assert seen.scope == before.scope
        assert seen.evidence is Evidence.FAULT
        assert "\n" not in seen.fault
        assert not seen.endpoints

    async def test_it_recovers_from_a_fault_by_itself(self, platform: Platform) -> None:
        async with watched(platform.provider()) as seeing:
            before = await seeing.next()
            platform.fail()
            await seeing.until(fault=True)
            platform.mend()
            assert await seeing.until(fault=False) == before

    async def test_a_fault_at_first_sight_is_waited_out(self, platform: Platform) -> None:
        platform.fail()
        async with watched(platform.provider()) as seeing:
            assert (await seeing.next()).evidence is Evidence.FAULT
            platform.mend()
            assert (await seeing.until(fault=False)).endpoints

    async def test_closing_it_leaves_no_task_behind(self, platform: Platform) -> None:
        before = asyncio.all_tasks()
        async with watched(platform.provider()) as seeing:
            await seeing.next()
        assert asyncio.all_tasks() == before

    async def test_cancelling_whoever_waits_for_it_ends_it(self, platform: Platform) -> None:
        before = asyncio.all_tasks()
        first = asyncio.Event()

        async def observe() -> None:
            async with watched(platform.provider()) as seeing:
                await seeing.next()
                first.set()
                while True:
                    await seeing.next()

        waiting = asyncio.create_task(observe())
        async with asyncio.timeout(PATIENCE):
            await first.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert asyncio.all_tasks() == before
