"""The demo with several platforms: what each says of its machines, and what an outage costs."""

import json
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from demos import demo, heard, left_in, marked

from meshfed.federation.demo import outages
from meshfed.federation.demo.folder import Host
from meshfed.federation.demo.measure import Call
from meshfed.federation.demo.outages import Outage, Toured
from meshfed.federation.demo.platforms import (
    AZURE,
    HOSTS,
    KUBERNETES,
    PLATFORMS,
    by_platform,
    clusters,
    dialled,
    emptied,
    left_alone,
    platforms,
    sellers,
    starting,
)

SHIPPED = resources.files("meshfed.demo") / "platforms"
THREE = "kubernetes,azure,hosts"


def shipped(platform: str) -> str:
    return (SHIPPED / f"{platform}.yaml").read_text()


def names(platform: str, text: str) -> list[str]:
    return [host.name for host in sellers(platform, text)]


def test_platforms_have_an_order_of_their_own():
    assert platforms("hosts, azure,kubernetes,hosts") == PLATFORMS
    assert platforms("hosts") == (HOSTS,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kubernetes,aws,hosts", "'aws' is none of kubernetes, azure, hosts"),
        ("", "'' is none of kubernetes, azure, hosts"),
        ("azure", "'azure' lacks hosts, where the bookbuyer is"),
    ],
)
def test_other_platforms_are_refused(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        platforms(text)


def test_the_refusal_is_one_line(tmp_path: Path):
    with demo(uuid4().hex, tmp_path, "--platforms", "azure") as process:
        _, err = process.communicate()
    assert (process.returncode, err.count("lacks hosts, where the bookbuyer is")) == (2, 1)


def test_the_bookstore_is_a_pod_three_kinds_of_machine_and_a_host():
    assert names(KUBERNETES, shipped(KUBERNETES)) == ["pod.shop"]
    assert names(AZURE, shipped(AZURE)) == ["vm", "flexible", "uniform_0"]
    assert names(HOSTS, shipped(HOSTS)) == ["host"]


def test_hosts_that_are_gone_are_not_listed_and_those_that_start_serve_nothing():
    assert names(HOSTS, emptied(HOSTS, shipped(HOSTS))) == []
    (there,) = (h for h in yaml.safe_load(starting(HOSTS, shipped(HOSTS)))["hosts"]
                if h["name"] == "host")  # fmt: skip
    assert "service" not in there


def test_pods_that_are_gone_leave_their_slice_and_those_that_start_are_not_ready():
    gone = list(yaml.safe_load_all(emptied(KUBERNETES, shipped(KUBERNETES))))
    assert [each["endpoints"] for each in gone if each["kind"] == "EndpointSlice"] == [[]]
    assert [each["kind"] for each in gone if each["kind"] == "Pod"] == []
    later = yaml.safe_load_all(starting(KUBERNETES, shipped(KUBERNETES)))
    (slice_,) = (each for each in later if each["kind"] == "EndpointSlice")
    assert [each["conditions"]["ready"] for each in slice_["endpoints"]] == [False]


@pytest.mark.parametrize(("become", "power"), [(emptied, "deallocated"), (starting, "starting")])
def test_azure_lists_its_machines_whatever_becomes_of_them(become: Any, power: str):
    text = become(AZURE, shipped(AZURE))
    assert names(AZURE, text) == names(AZURE, shipped(AZURE))
    said = yaml.safe_load(text)
    instances = [one for each in said["sets"] for one in each.get("instances", [])]
    assert {each["power"] for each in (*said["machines"], *instances)} == {power}


PAGE = """\
bookstore.shop|8080|79e3::127.0.1.141:15003::cx_active::4
bookstore.shop|8080|79e3::127.0.1.141:15003::health_flags::healthy
bookstore.shop|8080|79e3::127.0.1.142:15003::health_flags::/failed_outlier_check
bookwarehouse.shop|8080|79e3::127.0.1.121:15003::health_flags::healthy
tunnel::envoy://tunnel/::health_flags::healthy
"""


def test_envoys_page_says_whom_it_dials_and_whom_it_ejected():
    found = dialled(clusters(PAGE))
    assert found == {"127.0.1.141": "healthy", "127.0.1.142": "/failed_outlier_check"}
    assert left_alone(found, ["127.0.1.142"], 5)
    assert not left_alone(found, ["127.0.1.141", "127.0.1.142"], 5)
    assert left_alone(found, ["127.0.1.141", "127.0.1.142"], 2), "no more than half are ejected"
    of = {name: sellers(name, shipped(name)) for name in PLATFORMS}
    assert by_platform(found, of) == {"host": 1, "kubernetes": 1}


def bought(since: float, until: float, *outcomes: str) -> list[Call]:
    step = 0.01
    count = round((until - since) / step)
    return [
        Call(since + n * step, since + n * step + 0.001, "bookstore", outcomes[n % len(outcomes)])
        for n in range(count)
    ]


def run(**changed: object) -> Toured:
    """A run of 20 s: the pod is away from 5 to 8, the host from 13 to 16."""
    of: Mapping[str, tuple[Host, ...]] = {
        KUBERNETES: sellers(KUBERNETES, shipped(KUBERNETES)),
        HOSTS: sellers(HOSTS, shipped(HOSTS)),
    }
    good = Toured(
        sellers=of,
        endpoints={"kubernetes": 1, "host": 1},
        addresses={"host": 1, "kubernetes": 1},
        since=0.0,
        outages=(
            Outage(KUBERNETES, 5.0, 5.1, 6.0, 6.05, 8.0, agreed=True, others=3, unrelated=0),
            Outage(HOSTS, 13.0, 13.2, 14.0, 14.02, 16.0, agreed=True, others=3, unrelated=0),
        ),
        buyer=(
            *bought(0, 5, "pod.shop", "host"),
            *bought(5, 8, "host"),
            *bought(8, 13, "pod.shop", "host"),
            *bought(13, 20, "pod.shop"),
        ),
        proxies=5,
    )
    return replace(good, **changed)  # type: ignore[arg-type]


def failed(at: float) -> Call:
    return Call(at, at + 0.01, "bookstore", "failed")


def test_a_good_tour_has_no_findings_and_the_promised_shape():
    assert outages.findings(run()) == ()
    said = outages.result(run())
    assert said["endpoints"] == {"kubernetes": 1, "host": 1}
    assert said["answered"] == {"pod.shop": 250, "host": 250}
    assert said["stopped"][0] == {
        "platform": "kubernetes",
        "ejected_ms": 100.0,
        "failed_before_ejection": 0,
        "failed_after_ejection": 0,
        "answered_after_ejection": 290,
        "removed_ms": 50.0,
        "catalog_agrees": True,
        "unrelated_clusters": 3,
        "unrelated_updates": 0,
    }


def test_a_request_that_was_under_way_when_the_power_went_is_of_the_outage():
    early = Call(4.995, 5.02, "bookstore", "failed")
    said = outages.result(run(buyer=(*run().buyer, early)))
    assert (said["failed"], said["stopped"][0]["failed_before_ejection"]) == (0, 1)


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        pytest.param(
            {"buyer": (*run().buyer, failed(5.5))},
            "kubernetes away: 1 requests failed after its ejection",
            id="a request that failed later",
        ),
        pytest.param(
            {"buyer": (*run().buyer, failed(2.0))},
            "1 requests failed while every platform was there",
            id="a request that failed before",
        ),
        pytest.param(
            {"buyer": tuple(c for c in run().buyer if c.outcome != "pod.shop")},
            "pod.shop sold nothing",
            id="a machine that nobody called",
        ),
        pytest.param(
            {"addresses": {"host": 1}},
            "the catalog has {'kubernetes': 1, 'host': 1}, the bookbuyer's Envoy {'host': 1}",
            id="an Envoy that lacks one",
        ),
        pytest.param(
            {"outages": (run().outages[0], replace(run().outages[1], unrelated=2))},
            "hosts away: 2 updates of clusters that did not change",
            id="updates of what did not change",
        ),
        pytest.param(
            {"outages": (run().outages[0], replace(run().outages[1], others=0))},
            "hosts away: there is no cluster that it has nothing to do with",
            id="nothing to compare with",
        ),
        pytest.param(
            {"outages": (replace(run().outages[0], agreed=False), run().outages[1])},
            "kubernetes away: the catalog and the bookbuyer's Envoy disagree",
            id="two truths",
        ),
    ],
)
def test_a_broken_promise_is_named(changed: dict[str, object], finding: str):
    assert finding in outages.findings(run(**changed))


# --- The whole of it, through real Envoys ---------------------------------------------------------


def test_each_platform_loses_its_power_and_nothing_fails_once_it_is_ejected():
    mark = uuid4().hex
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        arguments = ("--platforms", THREE, "--seconds", "1", "-o", "json")
        with demo(mark, Path(name), *arguments) as process:
            out, err = process.communicate()
        assert (marked(mark), left_in(Path(name))) == ([], [])
    assert process.returncode == 0, err
    said = json.loads(out)
    assert said["endpoints"] == said["clusters"] == {"kubernetes": 1, "azure": 3, "host": 1}
    assert set(said["answered"]) == {"pod.shop", "vm", "flexible", "uniform_0", "host"}
    assert min(said["answered"].values()) > 0
    assert [each["platform"] for each in said["stopped"]] == list(PLATFORMS)
    for each in said["stopped"]:
        assert each["failed_after_ejection"] == 0 < each["answered_after_ejection"]
        assert each["catalog_agrees"]
        assert each["unrelated_updates"] == 0 < each["unrelated_clusters"]
    assert (said["failed"], said["proxies"]) == (0, 8)


def test_ctrl_c_takes_the_stand_ins_along():
    mark = uuid4().hex
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        with demo(mark, Path(name), "--platforms", THREE, "-o", "json") as process:
            heard(process, "starting the control plane")
            process.send_signal(signal.SIGINT)
            process.communicate()
        assert (process.returncode, marked(mark), left_in(Path(name))) == (130, [], [])
