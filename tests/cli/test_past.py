"""What was is listed as it was, and what may not be known is said in one line."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.database import stamp
from meshfed.catalog.model import Workload
from meshfed.catalog.reports import Pushed
from meshfed.catalog.store import Catalog

Run = Callable[..., Any]  # how it ended: code, out, err, lines

KEPT = ("services", "endpoints", "workloads", "policies", "providers")


def listed(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("kind", KEPT)
def test_what_was_has_the_columns_of_what_is(meshfed: Run, shop: str, kind: str) -> None:
    now, then = meshfed("get", kind, "-o", "csv"), meshfed("get", kind, "--at", 2, "-o", "csv")
    assert then.out.splitlines()[0] == now.out.splitlines()[0]
    assert len(then.out.splitlines()) == len(now.out.splitlines())


def test_who_has_left_was_there(meshfed: Run, one_leaves: Callable[[], None]) -> None:
    one_leaves()
    assert len(listed(meshfed("get", "endpoints", "-o", "json"))) == 1
    before = meshfed("get", "endpoints", "--at", 2)
    assert [line.split()[1] for line in before.out.splitlines()[1:]] == ["10.0.0.1", "10.0.0.2"]
    assert before.err.startswith("as of revision 2, 20")
    (service,) = listed(meshfed("get", "services", "--at", 2, "-o", "json"))
    assert service["endpoints"] == 2


def test_a_moment_is_a_time_as_well(
    meshfed: Run, shop: str, one_leaves: Callable[[], None]
) -> None:
    between = time.time()
    time.sleep(0.002)  # the catalog's clock ticks in milliseconds
    one_leaves()
    asked = stamp(between)
    assert len(listed(meshfed("get", "endpoints", "--at", asked, "-o", "json"))) == 2
    assert len(listed(meshfed("get", "endpoints", "--at", "0s ago", "-o", "json"))) == 1


WRONG = [
    pytest.param("99", "revision 99 is still to come: the newest is 2", id="a later revision"),
    pytest.param("0", "revisions begin with 1", id="no revision"),
    pytest.param("10y ago", "'10y' is no length of time: write 10m, 1h30m or 2d", id="years"),
    pytest.param("noon", "'noon' is no moment: write a time", id="a word"),
    pytest.param("25:00", "'25:00' is no moment: write a time", id="no hour"),
    pytest.param("2999-01-01", "2999-01-01 is still to come", id="the future"),
    pytest.param("2020-01-01", "nothing was known at 20", id="before the first revision"),
]


@pytest.mark.parametrize(("moment", "why"), WRONG)
def test_what_is_no_moment_is_one_line(meshfed: Run, shop: str, moment: str, why: str) -> None:
    ended = meshfed("get", "endpoints", "--at", moment)
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.lines
    assert line.startswith(why)


def test_a_new_catalog_has_no_past(meshfed: Run, url: str) -> None:
    ended = meshfed("get", "endpoints", "--at", "1m ago")
    assert ended.lines == ["the catalog is at its beginning: nothing has happened yet"]
    assert ended.code == 1


def test_what_keeps_no_history_says_what_does(meshfed: Run, shop: str) -> None:
    ended = meshfed("get", "proxies", "--at", "1m ago")
    assert ended.code == 1
    assert ended.lines[0].startswith("no history is kept of proxies: ask for access, ")


def test_the_past_cannot_be_watched(meshfed: Run, shop: str) -> None:
    assert meshfed("get", "endpoints", "--at", "1m ago", "-w").code == 2


def test_a_catalog_without_tables_says_what_makes_them(meshfed: Run, tmp_path: Path) -> None:
    (tmp_path / "meshfed.db").touch()
    ended = meshfed("get", "endpoints", "--at", "1m ago")
    assert ended.lines[0].endswith("run `meshfed migrate` first")


def test_history_says_who_came_and_who_went(meshfed: Run, one_leaves: Callable[[], None]) -> None:
    one_leaves()
    told = listed(meshfed("history", "bookstore.shop", "-o", "json"))
    last = [event for event in told if event["what"] == "endpoint"][-1]
    assert last["object"] == "bookstore.shop:8080 at 10.0.0.2:8080"
    assert (last["revision"], last["change"], last["cause"]) == (3, "left", "one left")
    header, *lines = meshfed("history", "bookstore.shop", "--since", "1h").out.splitlines()
    assert header.split()[:4] == ["AT", "REVISION", "OBJECT", "CHANGE"]
    assert len(lines) == len(told)


def test_history_of_nobody_says_who_was_meant(meshfed: Run, shop: str) -> None:
    ended = meshfed("history", "bokstore.shop")
    assert ended.lines == ["nothing is known of bokstore.shop: did you mean bookstore.shop?"]
    assert ended.code == 1


@pytest.mark.parametrize("place", ["10.0.0.2:8080", "10.0.0.2:15003"])
def test_history_takes_an_endpoint_as_why_does(
    meshfed: Run, one_leaves: Callable[[], None], place: str
) -> None:
    one_leaves()
    told = listed(meshfed("history", place, "-o", "json"))
    assert told == listed(meshfed("history", "10.0.0.2", "-o", "json")) != []


def test_history_of_a_port_that_nobody_had_says_who_was_meant(meshfed: Run, shop: str) -> None:
    ended = meshfed("history", "10.0.0.2:9999")
    assert ended.code == 1
    assert ended.lines[0].startswith("nothing is known of 10.0.0.2:9999: did you mean 10.0.0.2")


def test_history_of_a_quiet_time_is_empty(meshfed: Run, shop: str) -> None:
    ended = meshfed("history", "bookstore.shop", "--since", "0s")
    assert (ended.code, ended.out) == (0, "")
    assert ended.lines[0].startswith("nothing happened to bookstore.shop since 20")


def test_diff_says_what_became_different(meshfed: Run, one_leaves: Callable[[], None]) -> None:
    one_leaves()
    ended = meshfed("diff", "--from", 2)
    assert ended.out.splitlines()[0].split() == ["WHAT", "OBJECT", "CHANGE", "DETAIL"]
    assert "bookstore.shop at 10.0.0.2:8080  left" in ended.out
    assert ended.err.startswith("between revision 2, 20")
    assert meshfed("diff", "--from", 3).err.startswith("nothing differs between revision 3, ")
    backwards = listed(meshfed("diff", "--from", 3, "--to", 2, "-o", "json"))
    assert [c["change"] for c in backwards if c["what"] == "endpoint"] == ["joined"]


def test_what_was_sent_is_told_where_it_was_recorded(
    meshfed: Run, shop: str, store: Workload
) -> None:
    ended = meshfed("proxy", "config", "store-1", "--at", 2)
    assert ended.code == 1
    assert ended.lines[0].startswith("nothing is recorded of what store-1 was sent by revision 2")
    asyncio.run(send(shop, Pushed(store.id, "CDS", 2, {"web|80": "v1"})))
    (row,) = listed(meshfed("proxy", "config", "store-1", "clusters", "--at", 2, "-o", "json"))
    assert (row["type"], row["name"], row["version"]) == ("CDS", "web|80", "v1")
    assert meshfed("proxy", "config", "store-1", "routes", "--at", 2).code == 1
    assert meshfed("proxy", "config", "nobody", "--at", 2).code == 1
    assert meshfed("proxy", "config", "store-1", "--at", 2, "--diff").code == 2


async def send(url: str, pushed: Pushed) -> None:
    with closing(Catalog(url)) as catalog:
        await catalog.pushed([pushed])
