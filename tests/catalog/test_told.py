"""What providers, operators and proxies report is kept beside what is believed."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from believing import ALL, WEB_ID, ask, believe, endpoint, known, specified

from meshfed.catalog.reports import ProxyState, Reaches, Receipt
from meshfed.catalog.store import Catalog, UnknownScope

# Providers and operators


async def test_a_provider_that_fails_and_comes_back_is_told_once_each(
    catalog: Catalog, url: str
) -> None:
    await believe(catalog, known(endpoint()))
    for fault in ("timeout", "timeout", "", ""):
        await catalog.seen("rack", "hosts", "rack/a", fault=fault)
    told = ask(url, "select change from mesh_changes where what = 'provider' order by revision")
    assert [change for (change,) in told] == ["first seen", "failing: timeout", "answers again"]
    assert ask(url, "select state, reason from mesh_providers") == [("good", "")]
    assert (await catalog.read()).revision == 1


async def test_what_is_believed_while_a_provider_fails_does_not_tell_it_again(
    catalog: Catalog, url: str
) -> None:
    for fault in ("", "timeout", "timeout", ""):
        await believe(catalog, known(endpoint()))
        await catalog.seen("rack", "hosts", "rack/a", fault=fault)
        state, reason = ("failing", fault) if fault else ("good", "")
        assert ask(url, "select state, reason from mesh_providers") == [(state, reason)]
    told = ask(url, "select change from mesh_changes where what = 'provider' order by revision")
    assert [change for (change,) in told] == ["first seen", "failing: timeout", "answers again"]


async def test_orders_are_kept_and_wake_followers(catalog: Catalog, url: str) -> None:
    await believe(catalog, known(endpoint()))
    await catalog.pause("rack", "ann")
    assert (await catalog.orders("rack")).paused
    assert ask(url, "select state from mesh_providers") == [("paused",)]
    await catalog.resume("rack", "ann")
    await catalog.accept("rack/a", "ann")
    orders = await catalog.orders("rack")
    assert (orders.paused, orders.accepted) == (False, {"rack/a"})
    told = ask(url, "select change, who from mesh_changes where who <> '' order by revision")
    assert told == [("paused", "ann"), ("resumed", "ann"), ("accepted", "ann")]
    assert (await catalog.read()).revision == 4


async def test_an_acceptance_is_used_up_by_the_belief_it_allowed(catalog: Catalog) -> None:
    doubted = known(endpoint(), doubt="half gone")
    await believe(catalog, doubted)
    await catalog.accept("rack/a", "ann")
    await believe(catalog, doubted)
    assert (await catalog.orders("rack")).accepted == {"rack/a"}
    await believe(catalog, known())
    assert (await catalog.orders("rack")).accepted == frozenset()


@pytest.mark.parametrize(
    "order",
    [
        lambda catalog: catalog.accept("rack/b", "ann"),
        lambda catalog: catalog.pause("azure", "ann"),
        lambda catalog: catalog.resume("files:p", "ann"),
    ],
)
async def test_an_order_about_nothing_names_what_there_is(
    catalog: Catalog, order: Callable[[Catalog], Any]
) -> None:
    await believe(catalog, known(endpoint()))
    await catalog.specify(specified(ALL))
    with pytest.raises(UnknownScope, match="there is rack"):
        await order(catalog)


# Proxies and certificates


def proxy(name: str = "p1", **given: Any) -> ProxyState:
    return ProxyState(
        **{"proxy": name, "identity": WEB_ID, "workload": "h1", "connected_since": 0.0} | given
    )


async def test_receipts_become_what_each_proxy_has(catalog: Catalog, url: str) -> None:
    await catalog.record("r1", 7, [proxy()], [], [Receipt("p1", "CDS", "v1", 1.0, 2.0)])
    rejecting = proxy(state="rejecting", reason="CDS: no such thing")
    refused = Receipt("p1", "CDS", "v2", 3.0, 4.0, "no such thing")
    await catalog.record("r1", 7, [rejecting], [], [refused])
    sync = "select sent_version, acked_version, nack, acked_at, nack_at from mesh_proxy_sync"
    assert ask(url, sync) == [
        ("v2", "v1", "no such thing", "1970-01-01T00:00:02.000Z", "1970-01-01T00:00:04.000Z")
    ]
    await catalog.record("r1", 7, [proxy()], [], [Receipt("p1", "CDS", "v3", 5.0, 6.0)])
    assert ask(url, sync) == [("v3", "v3", None, "1970-01-01T00:00:06.000Z", None)]


REFUSED = "select type, sent_version, nack from mesh_proxy_sync order by type"


async def rejected(catalog: Catalog) -> None:
    """A proxy that accepted clusters before it rejected some, and rejected all listeners."""
    rejecting = proxy(state="rejecting", reason="CDS: no; such thing; LDS: nor such")
    receipts = [
        Receipt("p1", "CDS", "v1", 1.0, 2.0),
        Receipt("p1", "LDS", "v1", 1.0, 2.0, "nor such"),
    ]
    await catalog.record("r1", 1, [rejecting], [], receipts)
    refused = Receipt("p1", "CDS", "v2", 3.0, 4.0, "no; such thing")
    await catalog.record("r1", 1, [], [], [refused])


async def test_what_a_stream_of_before_rejected_is_told_as_long_as_it_is_so(
    catalog: Catalog, url: str
) -> None:
    await rejected(catalog)
    here, both = ("CDS", "v2", "no; such thing"), ("LDS", "v1", "nor such")
    assert ask(url, REFUSED) == [here, both]
    again = proxy(state="rejecting", reason="CDS: no; such thing", connected_since=9.0)
    await catalog.record("r1", 1, [again], [], [])  # it is not sent again what it rejected
    assert ask(url, REFUSED) == [here]
    well = proxy(connected_since=10.0)
    await catalog.record("r2", 1, [well], [], [])  # and there was nothing to send to it
    assert ask(url, REFUSED) == [("CDS", "v1", None)]


async def test_what_a_proxy_rejected_that_is_not_connected_is_not_told(
    catalog: Catalog, url: str
) -> None:
    await rejected(catalog)
    await catalog.record("r1", 1, [], ["p1"], [])
    late = Receipt("p1", "CDS", "v2", 3.0, 4.0, "no; such thing")
    await catalog.record("r2", 1, [], [], [late])  # another's, of a stream that it noticed late
    assert ask(url, REFUSED) == []


async def test_a_proxy_that_moved_is_not_forgotten_by_the_replica_it_left(
    catalog: Catalog, url: str
) -> None:
    receipt = Receipt("p1", "CDS", "v1", 1.0, 2.0)
    reaches = Reaches(1, frozenset({("web|80", 0, "web.shop", 3, "v1")}))
    await catalog.record("r1", 1, [proxy(kind=1)], [], [receipt], [reaches])
    await catalog.record("r2", 1, [proxy(state="behind", behind=1, kind=1)], [], [], [reaches])
    await catalog.record("r1", 1, [], ["p1"], [])
    assert ask(url, "select replica, state from mesh_proxies") == [("r2", "behind")]
    assert ask(url, "select cluster, endpoints from mesh_clusters") == [("web|80", 3)]
    await catalog.record("r2", 1, [], ["p1"], [])
    for view in ("mesh_proxies", "mesh_proxy_sync", "mesh_clusters"):
        assert ask(url, f"select * from {view}") == []


async def test_proxies_of_a_replica_that_says_nothing_are_silent(url: str) -> None:
    with closing(Catalog(url, clock=lambda: 0.0)) as catalog:
        await catalog.record("r1", 1, [proxy()], [], [])
    assert ask(url, "select state from mesh_proxies") == [("silent",)]


async def test_the_first_authority_that_is_kept_stands(catalog: Catalog, url: str) -> None:
    assert await catalog.authority() is None
    with closing(Catalog(url)) as other:
        kept = await asyncio.gather(
            catalog.keep_authority("one", b"1"), other.keep_authority("two", b"2")
        )
    assert kept[0] == kept[1] == await catalog.authority()
