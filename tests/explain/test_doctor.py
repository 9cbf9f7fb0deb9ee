"""What doctor says of each part, from what was found out about it."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshfed.catalog.bearings import Bearings, Connected, Replica
from meshfed.catalog.leadership import Leader, Term
from meshfed.catalog.model import Mesh, Port, Service, ServiceName
from meshfed.catalog.ranges import NO_RANGES, Ranges
from meshfed.catalog.resolved import resolve
from meshfed.federation.explain import examine
from meshfed.federation.explain.doctor import (
    Door,
    Store,
    certificates,
    clock,
    control_plane,
    database,
    ports,
    providers,
    proxies,
    virtual_ips,
)
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.seen import Certified, Provided
from meshfed.federation.explain.step import State, Step
from meshfed.federation.explain.wait import arrival

NOON = 1_800_000_000.0
DAY = 86_400.0


def failed(steps: object) -> list[str]:
    found = [steps] if isinstance(steps, Step) else list(steps)  # type: ignore[call-overload]
    return [f"{s.object}: {s.what}" for s in found if s.state is State.FAILING]


@pytest.mark.parametrize(
    ("store", "wrong"),
    [
        pytest.param(Store("db", free=0.5), "", id="all is well"),
        pytest.param(Store("db", away="no route to host"), "no route to host", id="away"),
        pytest.param(Store("db", pending=("0002",)), "lacks 0002", id="of an older version"),
        pytest.param(Store("db", unwritable="readonly"), "cannot be written", id="read-only"),
        pytest.param(Store("db", deaf="a pooler"), "a pooler", id="behind a pooler"),
        pytest.param(Store("db", free=0.01), "1.0% left", id="a disk that is nearly full"),
    ],
)
def test_the_database(store: Store, wrong: str) -> None:
    found = failed(database(store))
    assert bool(found) == bool(wrong)
    assert all(wrong in each for each in found)


@pytest.mark.parametrize(
    ("here", "theirs", "newest", "wrong"),
    [
        pytest.param(NOON, NOON + 1, None, "", id="a second is nothing"),
        pytest.param(NOON, NOON + 60, None, "60 s behind the database", id="behind the database"),
        pytest.param(NOON, NOON - 60, None, "60 s ahead of the database", id="ahead of it"),
        pytest.param(NOON, None, NOON - DAY, "", id="nothing was written for a day"),
        pytest.param(NOON, None, NOON + 60, "60 s behind what wrote", id="the past is ahead"),
        pytest.param(NOON, NOON + 600, None, "certificates made here", id="by ten minutes"),
    ],
)
def test_the_clock(here: float, theirs: float | None, newest: float | None, wrong: str) -> None:
    found = failed(clock(here, theirs, newest))
    assert bool(found) == bool(wrong)
    assert all(wrong in each for each in found)


@pytest.mark.parametrize(
    ("door", "here", "wrong"),
    [
        pytest.param(Door("xds.listen", "x", answers=True, ours=True), True, "", id="ours"),
        pytest.param(Door("xds.listen", "x", answers=False, ours=False), False, "", id="free"),
        pytest.param(
            Door("xds.listen", "x", answers=True, ours=False), False, "something else", id="taken"
        ),
        pytest.param(
            Door("xds.listen", "x", answers=True, ours=True), False, "another catalog's",
            id="taken by another mesh",
        ),
        pytest.param(
            Door("xds.listen", "x", answers=False, ours=False), True, "nothing answers",
            id="not where it should be",
        ),
        pytest.param(
            Door("xds.listen", "x", answers=True, ours=None), True, "taken, but does not answer",
            id="taken by what is stopped",
        ),
    ],
)  # fmt: skip
def test_a_port(door: Door, here: bool, wrong: str) -> None:
    found = failed(ports([door], running_here=here))
    assert bool(found) == bool(wrong)
    assert all(wrong in each for each in found)


def test_a_port_that_accepts_and_is_silent_is_not_taken_for_something_else(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "PATIENCE", 0.1)
    config = tmp_path / "meshfed.yaml"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config.write_text(
            "mesh: {trust_domain: shop.example}\n"
            f"admin: {{listen: '127.0.0.1:{port}'}}\nxds: {{listen: '127.0.0.1:0'}}\n"
        )
        ended = command("doctor", "--config", config, "-o", "json")
    (door,) = (step for step in json.loads(ended.out) if step["step"] == "port")
    assert (door["state"], door["what"]) == ("failing", "admin.listen: taken, but does not answer")


def test_certificates_that_ended_and_a_key_that_is_lost() -> None:
    held = [
        Certified("a.shop", "a.shop", "claimed", "2020-01-01T00:00:00.000Z"),
        Certified("b.shop", "b.shop", "claimed", "2999-01-01T00:00:00.000Z"),
    ]
    found = failed(certificates(NOON + DAY, "", held, NOON))
    assert len(found) == 1
    assert found[0].startswith("a.shop: ended at 2020-01-01")
    assert failed(certificates(NOON - DAY, "", (), NOON))[0].startswith("root: ended at")
    assert failed(certificates(None, "the key is missing", (), NOON)) == ["key: the key is missing"]


@pytest.mark.parametrize("state", ["doubted", "failing", "paused"])
def test_a_provider_that_is_not_believed(state: str) -> None:
    scope = Provided("rack", "hosts", "rack/hosts.yaml", state, 3, "3 of 4 vanished", "")
    (step,) = providers([scope])
    assert step.state is State.FAILING
    assert step.object == "rack/hosts.yaml"
    assert step.remedy


def test_entries_that_were_left_out_are_a_finding() -> None:
    why = "hosts.yaml:7: adress: unknown"
    (said,) = failed(providers([Provided("rack", "hosts", "rack/hosts.yaml", "good", 3, "", why)]))
    assert why in said


# Proxies and replicas


def test_services_that_have_no_virtual_ip_because_there_is_none_left() -> None:
    def service(name: str, **said: Any) -> Service:
        return Service(ServiceName(name, "shop"), (Port(80),), **said)

    given = service("a", virtual=("240.240.0.1",))
    others = service("b", vip="10.96.0.7"), service("c", headless=True)
    ranges = Ranges.parse("240.240.0.0/29")
    for there in ([given, *others], others):
        (step,) = virtual_ips([service("e"), *there, service("d")], ranges)
        assert step.object == "d.shop, e.shop"
        assert "240.240.0.0/29" in step.what
    assert [*virtual_ips([given, *others], ranges)] == []
    assert [*virtual_ips([service("d"), *others], NO_RANGES)] == []


def replica(name: str = "r1", evaluated: int = 7, silent_for: float = 1.0) -> Replica:
    return Replica(name, evaluated, NOON - silent_for)


def proxy(
    workload: str, state: str = "synced", behind: int | None = None, **also: str
) -> Connected:
    told = {"replica": "r1", "reason": "", **also}
    return Connected(workload, workload, "a.shop", told["replica"], state, told["reason"], behind,
                     NOON - 60, "1.40.0")  # fmt: skip


def bearings(*things: Replica | Connected, revision: int = 7) -> Bearings:
    return Bearings(
        revision,
        NOON - 60,
        None,
        tuple(thing for thing in things if isinstance(thing, Replica)),
        tuple(thing for thing in things if isinstance(thing, Connected)),
        {},
        {},
    )


def facts(*things: Replica | Connected) -> Facts:
    mesh = Mesh("shop.example")
    return Facts(mesh, resolve(mesh), bearings(*things), NOON)


def test_replicas_that_live_and_one_that_does_not() -> None:
    assert failed(control_plane(facts(replica()))) == []
    both = list(control_plane(facts(replica(), replica("r2", silent_for=60))))
    assert [step.state for step in both] == [State.OK, State.WARNING]
    assert failed(control_plane(facts(replica(silent_for=60))))
    assert failed(control_plane(facts())) == ["serve: none is running"]


def test_the_one_that_leads_is_named() -> None:
    known = facts(replica(), replica("r2"))
    led = replace(known, bearings=replace(known.bearings, leader=Leader(Term(3, "r2"), held=True)))
    said = [f"{step.object}: {step.what}" for step in control_plane(led)]
    assert said == ["r1: serves revision 7", "r2: serves revision 7, and leads since epoch 3"]


def test_no_proxy_is_needed_for_all_to_be_well() -> None:
    assert failed(proxies(facts(replica()))) == []


@pytest.mark.parametrize(
    ("things", "why"),
    [
        pytest.param([replica(), proxy("a"), proxy("b")], "", id="all have it"),
        pytest.param([replica()], "", id="nobody is connected"),
        pytest.param([replica(), proxy("a", behind=8)], "", id="only newer ones are owed"),
        pytest.param(
            [replica(), proxy("a"), proxy("b", "behind", 7)],
            "b (has not acknowledged revision 7)", id="one owes it",
        ),
        pytest.param(
            [replica(), proxy("a", "rejecting", 5, reason="LDS: no")], "a (rejecting: LDS: no)",
            id="one rejects",
        ),
        pytest.param(
            [replica(evaluated=6), proxy("a")], "a (its replica r1 is at revision 6)",
            id="its replica lags",
        ),
        pytest.param(
            [replica(), replica("r2", silent_for=60), proxy("a", "behind", 3, replica="r2")],
            "a (silent: its replica r2 writes nothing)", id="its replica is silent",
        ),
    ],
)  # fmt: skip
def test_who_lacks_a_revision(things: list[Replica | Connected], why: str) -> None:
    found = arrival(bearings(*things), 7, NOON)
    assert found.there == (not why)
    assert [str(lag) for lag in found.lacking] == ([why] if why else [])


def test_a_revision_cannot_have_got_anywhere_without_a_control_plane() -> None:
    assert "is `meshfed serve` running?" in arrival(bearings(), 7, NOON).why
    assert "not committed yet" in arrival(bearings(replica()), 8, NOON).why
    assert arrival(bearings(replica(evaluated=6)), None, NOON).why == "replica r1 is at 6"
