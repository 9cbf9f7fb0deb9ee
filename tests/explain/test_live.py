"""A real mesh, asked about itself."""

import json

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_a_live_envoy_has_is_what_it_should_have(world):
    ended = await world.ask("proxy", "config", "caller", "--diff", "-o", "json")
    assert (ended.code, json.loads(ended.out)) == (0, [])
    assert "38 resources" in ended.err


async def test_no_key_is_shown_of_a_proxy(world):
    ended = await world.ask("proxy", "config", "caller", "secrets", "-o", "json")
    told = json.loads(ended.out)
    (own,) = (each for each in told if each["name"] == "certificate")
    assert own["config"] == {"private_key": "[redacted]"}
    assert "PRIVATE KEY" not in ended.out
    assert "BEGIN" not in ended.out


async def test_one_type_with_all_of_its_content(world):
    ended = await world.ask("proxy", "config", "caller", "clusters", "-o", "json")
    told = {each["name"]: each for each in json.loads(ended.out)}
    web = told["web.live|8080"]
    assert {each["type"] for each in told.values()} == {"CDS"}
    assert web["wanted"] == web["live"]
    assert web["acked"]
    assert web["config"]["name"] == "web.live|8080"


async def test_a_revision_that_all_have_is_not_waited_for(world):
    ended = await world.ask("wait", "--timeout", "20s", "-o", "json")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)
    assert (row["proxies"], row["lacking"], row["why"]) == (4, 0, "")


async def test_a_revision_that_nobody_has_committed_is_waited_for_in_vain(world):
    ended = await world.ask("wait", "--revision", "1000", "--timeout", "1s")
    assert ended.code == 1
    assert "revision 1000: not committed yet: the newest revision is" in ended.err


async def test_doctor_finds_only_what_a_test_on_one_machine_cannot_avoid(world):
    ended = await world.ask("doctor", "-o", "json")
    wrong = [step for step in json.loads(ended.out) if step["state"] == "failing"]
    assert {step["step"] for step in wrong} == {"protected", "proxy", "host"}, ended.err
    absent = {step["object"] for step in wrong if step["step"] != "protected"}
    assert absent == {"gone", "127.0.5.9:15003"}  # a host that nobody started


async def test_why_of_an_endpoint_that_is_in_use(world):
    ended = await world.ask("why", "127.0.5.2", "-o", "json")
    steps = [(s["step"], s["state"]) for s in json.loads(ended.out) if s["step"] != "protected"]
    assert steps[0] == ("scope", "ok")
    assert steps[-2:] == [("sent", "ok"), ("acknowledged", "ok")]
    assert {state for _, state in steps} == {"ok"}
