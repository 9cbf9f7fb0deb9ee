"""What proxies were sent is told of any revision, exactly."""

import asyncio
from contextlib import closing
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshfed.catalog import pushes
from meshfed.catalog.model import Identity, Known, Workload
from meshfed.catalog.past import looked
from meshfed.catalog.reports import Pushed
from meshfed.catalog.store import Catalog

NUMBERS = count()


def host() -> Workload:
    """A proxy that no other example has: the catalog may be shared."""
    return Workload(f"h{next(NUMBERS)}", "rack", "rack/a", identity=Identity("web", "shop"))


async def believe(catalog: Catalog, *workloads: Workload) -> int | None:
    known = Known("rack", "rack/a", workloads=frozenset(workloads))
    return await catalog.believe(known, kind="hosts", cause="a test")


def sent(url: str, proxy: str, revision: int) -> dict[tuple[str, str], str]:
    found = looked(url, lambda connection: pushes.sent(connection, proxy, revision))
    return {(row["type"], row["name"]): row["version"] for row in found}


def pushed(proxy: str, revision: int, **versions: str) -> Pushed:
    return Pushed(proxy, "CDS", revision, versions)


async def test_each_revision_has_what_was_sent_by_then(catalog: Catalog, url: str) -> None:
    proxy = host()
    await believe(catalog, proxy)
    await catalog.pushed([pushed(proxy.id, 3, a="1", b="1"), pushed(proxy.id, 5, a="2")])
    assert sent(url, proxy.id, 2) == {}
    assert sent(url, proxy.id, 3) == sent(url, proxy.id, 4)
    assert sent(url, proxy.id, 4) == {("CDS", "a"): "1", ("CDS", "b"): "1"}
    assert sent(url, proxy.id, 9) == {("CDS", "a"): "2"}


async def test_what_was_rejected_was_sent_and_is_told(catalog: Catalog, url: str) -> None:
    proxy = host()
    await believe(catalog, proxy)
    await catalog.pushed([pushed(proxy.id, 3, a="1"), pushed(proxy.id, 4, a="", b="")])
    assert sent(url, proxy.id, 4) == {("CDS", "a"): "1"}


async def test_a_proxy_that_left_the_mesh_has_nothing_and_leaves_nothing(
    catalog: Catalog, url: str
) -> None:
    proxy = host()
    await believe(catalog, proxy)
    await catalog.pushed([pushed(proxy.id, 1, a="1")])
    assert await believe(catalog) == 2
    assert sent(url, proxy.id, 1) == {("CDS", "a"): "1"}
    await catalog.pushed([pushed(proxy.id, 1, a="2")])  # said by a replica that is late
    assert sent(url, proxy.id, 2) == {}


STATES = st.lists(
    st.tuples(
        st.sampled_from(("CDS", "EDS")),
        st.integers(0, 2),  # revisions later
        st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123")),
    ),
    max_size=8,
)


@given(states=STATES, at_once=st.integers(1, 4))
@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_whatever_is_sent(url: str, states: list[tuple[str, int, dict[str, str]]], at_once: int):
    check(url, states, at_once)


@pytest.mark.soak
@given(states=STATES, at_once=st.integers(1, 4))
@settings(derandomize=False, max_examples=1000, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_whatever_is_sent_many_times(
    url: str, states: list[tuple[str, int, dict[str, str]]], at_once: int
) -> None:
    check(url, states, at_once)


def check(url: str, states: list[tuple[str, int, dict[str, str]]], at_once: int) -> None:
    proxy = host()
    has: dict[str, dict[str, str]] = {}
    expected: dict[int, dict[tuple[str, str], str]] = {}
    told: list[Pushed] = []
    revision = 1
    for kind, later, versions in states:
        revision += later
        has[kind] = versions
        told.append(Pushed(proxy.id, kind, revision, versions))
        expected[revision] = {(t, n): v for t, of in has.items() for n, v in of.items()}

    async def tell() -> None:
        with closing(Catalog(url)) as catalog:
            await believe(catalog, proxy)
            for start in range(0, len(told), at_once):
                await catalog.pushed(told[start : start + at_once])

    asyncio.run(tell())
    for at, wanted in expected.items():
        assert sent(url, proxy.id, at) == wanted
