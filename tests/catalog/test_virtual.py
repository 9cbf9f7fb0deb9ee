"""Virtual IPs: who is given one, that it is theirs for life, and what if none is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from dataclasses import replace

import pytest

from meshfed.catalog.model import Known, Port, Service, ServiceName
from meshfed.catalog.plain import Plain
from meshfed.catalog.ranges import Ranges
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.catalog.unaddressed import address
from meshfed.catalog.virtual import RESTS
from meshfed.federation import addressing

SIX = Ranges.parse("240.240.0.0/29")
BOTH = Ranges.parse("240.240.0.0/29, fd00:6d65::/125")
A, B, C, D = "abcd"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def catalog(url: str, clock: Clock) -> AsyncIterator[Catalog]:
    with closing(Catalog(url, clock=clock)) as made:
        yield made


def service(name: str, **said: object) -> Service:
    return Service(ServiceName(name, "shop"), (Port(80),), **said)


def known(*services: Service | str, provider: str = "rack") -> Known:
    said = (service(each) if isinstance(each, str) else each for each in services)
    return Known(provider, f"{provider}/all", frozenset(said))


async def say(catalog: Catalog, *services: Service | str, provider: str = "rack") -> None:
    await catalog.believe(known(*services, provider=provider), kind="test", cause="")


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    return list(query(url, sql).rows)


async def ranged(catalog: Catalog, ranges: Ranges) -> int | None:
    return await catalog.configure("shop.example", permissive=False, virtual_ranges=ranges)


async def given(catalog: Catalog) -> dict[str, str]:
    """The last byte of each address tells it from the others."""
    services = (await catalog.read()).services.values()
    return {
        each.name.name: ", ".join(one.removeprefix("240.240.0.") for one in each.virtual)
        for each in services
    }


async def test_a_service_that_no_platform_gives_an_address_has_one_in_the_revision_it_comes_in(
    catalog: Catalog, url: str
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, A, service("b", vip="10.96.0.7"), service("c", headless=True))
    assert await given(catalog) == {"a": "1", "b": "", "c": ""}
    told = "select service, addresses, revision from mesh_virtual_ips"
    assert rows(url, told) == [("a.shop", "240.240.0.1", 2)]


async def test_each_range_has_an_address_for_it(catalog: Catalog) -> None:
    await ranged(catalog, BOTH)
    await say(catalog, A, B)
    assert await given(catalog) == {"a": "1, fd00:6d65::1", "b": "2, fd00:6d65::2"}


async def test_it_keeps_its_address_whatever_becomes_of_it_or_of_others(
    catalog: Catalog, url: str
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, A, B)
    await say(catalog, B)
    await say(catalog, replace(service(B), ports=(Port(81),)), C)
    assert await given(catalog) == {"b": "2", "c": "3"}
    with closing(Catalog(url)) as other:  # after a restart
        await say(other, A, B, C, D)
        assert await given(other) == {"a": "1", "b": "2", "c": "3", "d": "4"}
    lived = "select addresses, valid_to_revision from mesh_virtual_ip_history where service = "
    assert rows(url, f"{lived}'a.shop' order by valid_from_revision") == [
        ("240.240.0.1", 3),
        ("240.240.0.1", None),
    ]


async def test_what_is_stated_goes_before_it_and_what_is_not_any_more_has_its_own_back(
    catalog: Catalog,
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, A, B)
    await say(catalog, service("a", vip="10.96.0.7"), provider="aks")
    assert await given(catalog) == {"a": "", "b": "2"}
    await say(catalog, provider="aks")
    assert await given(catalog) == {"a": "1", "b": "2"}


async def test_where_it_is_full_a_line_says_so_and_addresses_of_the_gone_rest_first(
    catalog: Catalog, url: str, clock: Clock
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, *"abcdef")
    await say(catalog, *"abcdefg")
    line = "no virtual IP: 240.240.0.0/29 is full: widen it"
    told = "select object, change from mesh_changes where change like 'no virtual%'"
    assert rows(url, told) == [("g.shop", line)]
    await say(catalog, *"bcdefg")  # a is gone
    clock.now += RESTS - 1
    await say(catalog, *"bcdefgh")
    assert (await given(catalog)) | {"g": "", "h": ""} == await given(catalog)
    clock.now += 2
    await ranged(catalog, SIX)  # whoever leads next looks, too
    assert await given(catalog) == {**dict(zip("bcdef", "23456", strict=True)), "g": "1", "h": ""}
    await say(catalog, *"abcdefgh")  # it was given away
    assert (await given(catalog))["a"] == ""


async def test_who_has_none_has_one_as_soon_as_one_has_rested(
    catalog: Catalog, url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addressing, "EVERY", 0.01)
    await ranged(catalog, SIX)
    await say(catalog, *"abcdef")
    await say(catalog, *"abcdefgh")
    await say(catalog, *"bcdefgh")  # a is gone, and its address rests
    leading = asyncio.create_task(addressing.keep_addressed(catalog))
    async with asyncio.timeout(10), aclosing(catalog.follow()) as followed:
        before = await anext(followed)
        assert await address(catalog) is None
        clock.now += RESTS + 1
        assert await anext(followed) == before + 1
    leading.cancel()
    await asyncio.wait([leading])
    assert await given(catalog) == {**dict(zip("bcdef", "23456", strict=True)), "g": "1", "h": ""}
    told = "select object from mesh_changes where change like 'no virtual%' order by object"
    assert rows(url, told) == [("g.shop",), ("h.shop",)]  # once


async def test_a_wider_range_gives_those_without_one_theirs_and_leaves_the_others_theirs(
    catalog: Catalog,
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, *"abcdefg")
    await ranged(catalog, Ranges.parse("240.240.0.0/28"))
    assert await given(catalog) == dict(zip("abcdefg", "1234567", strict=True))


async def test_a_narrower_one_renumbers_those_that_do_not_fit(catalog: Catalog) -> None:
    await ranged(catalog, SIX)
    await say(catalog, *"abc")
    await say(catalog, "c")
    await ranged(catalog, Ranges.parse("240.240.0.0/30"))
    assert await given(catalog) == {"c": ""}  # those of a and b rest
    await ranged(catalog, Ranges.parse("240.240.0.8/29"))
    assert await given(catalog) == {"c": "11"}
    await ranged(catalog, Ranges())
    assert await given(catalog) == {"c": ""}


async def test_what_was_is_as_it_was(catalog: Catalog, url: str) -> None:
    await ranged(catalog, SIX)
    await say(catalog, A)
    before = await catalog.read()
    await ranged(catalog, BOTH)
    newer, changed = await catalog.advance(before)
    assert changed.shape
    assert newer == await catalog.read()
    assert newer.services[ServiceName("a", "shop")].virtual == ("240.240.0.1", "fd00:6d65::1")


async def test_writers_at_once_give_nobody_the_same(url: str) -> None:
    """Whoever registers a machine writes at its replica, beside the leader."""
    many = Ranges.parse("240.240.0.0/24")
    handles = [Catalog(url) for _ in range(4)]
    try:
        await ranged(handles[0], many)
        await asyncio.gather(
            *(
                say(handle, f"s{n}-{m}", provider=f"p{n}-{m}")
                for n, handle in enumerate(handles)
                for m in range(8)
            )
        )
        found = (await given(handles[0])).values()
        assert sorted(map(int, found)) == list(range(1, 33))
        assert await ranged(handles[0], many) is None
    finally:
        for handle in handles:
            handle.close()


async def test_what_a_version_before_wrote_without_one_has_it_again_from_the_next_leader(
    catalog: Catalog,
) -> None:
    await ranged(catalog, SIX)
    await say(catalog, A, B)
    await catalog.change(
        lambda writing: Plain("update services set virtual_ips = ''").run(writing.connection)
    )
    assert await given(catalog) == {"a": "", "b": ""}
    await ranged(catalog, SIX)
    assert await given(catalog) == {"a": "1", "b": "2"}
    assert await ranged(catalog, SIX) is None
