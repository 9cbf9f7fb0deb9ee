"""What a list leaves out is found by each of its names, with its line."""

import asyncio
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from meshfed.catalog.model import Known, Observation
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admit import admit
from meshfed.providers.hostfile import check

SOUND = """\
services: {web.shop: {ports: {http: 8080}}}
hosts:
  - {name: web-1, address: 10.0.0.1, service: web.shop, identity: web.shop}
  - {name: web-2, address: 10.0.0.2, service: web.shop, identity: web.shop}
"""
MORE = "  - {name: db-1, address: db-1.corp, service: db.shop, port: 0, identity: db.shop}\n"
LEFT_OUT = "rack leaves an entry of rack/hosts.yaml out: hosts.yaml:"
ZERO = f"{LEFT_OUT}5: hosts[2].port: 0 is neither a port number (1-65535) nor the name of a port"


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/meshfed.db"
    migrate(url)
    return url


def listed(text: str) -> Observation:
    return check(text, "hosts.yaml", "rack")


def seen(url: str, *observations: Observation) -> None:
    """A catalog that believes of these, one after the other, what it would in `serve`."""

    async def fill() -> None:
        with closing(Catalog(url)) as catalog:
            await catalog.configure("shop.example", permissive=False)
            known = Known("rack", "rack/hosts.yaml")
            for each in observations:
                known = admit(known, each).known
                await catalog.believe(known, kind="hosts", cause="")
            await catalog.record("replica-1", 1, (), (), ())

    asyncio.run(fill())


def lines(said: str, about: Iterable[str]) -> list[str]:
    return [line for line in said.splitlines() if all(part in line for part in about)]


@pytest.mark.parametrize("name", ["db-1", "db-1.corp", "db.shop"])
def test_a_host_that_its_list_leaves_out_is_found(catalog, command, name: str):
    seen(catalog, listed(SOUND + MORE))
    ended = command("why", name, "--catalog", catalog)
    assert ended.code == 1
    assert lines(ended.err, [f"admitted: {name}: {ZERO}", "correct that line"]), ended.err


@pytest.mark.parametrize("name", ["db", "corp", "0", "hosts"])
def test_what_is_only_a_part_of_its_name_is_not(catalog, command, name: str):
    seen(catalog, listed(SOUND + MORE))
    assert "nothing here is called" in command("why", name, "--catalog", catalog).err


def test_hosts_that_are_left_out_with_their_service_are_found(catalog, command):
    seen(catalog, listed(SOUND.replace("8080", "0") + MORE.replace("port: 0", "port: 3306")))
    ended = command("why", "web-2", "--catalog", catalog)
    assert lines(ended.err, [f"admitted: web-2: {LEFT_OUT}1: services.web.shop"]), ended.err


@pytest.mark.parametrize("name", ["web-2", "10.0.0.2", "10.0.0.2:8080", "web.shop"])
def test_one_that_is_kept_because_its_scope_is_doubted_is_named_with_its_mistake(
    catalog, command, name: str
):
    wrong = SOUND.replace("web-2, address", "web-2, weight: 0, address")
    seen(catalog, listed(SOUND), listed(wrong))
    ended = command("why", name, "--catalog", catalog)
    assert lines(ended.err, ["scope: rack/hosts.yaml", "is doubted"]), ended.err
    why = f"{LEFT_OUT}4: hosts[1].weight: 0 is not in 1-65535"
    assert lines(ended.err, ["admitted: ", why]), ended.err


def test_one_of_a_list_of_which_nothing_is_sound_is_named_with_its_mistake(catalog, command):
    seen(catalog, listed(SOUND), listed(SOUND.replace("identity", "identify")))
    ended = command("why", "web-2", "--catalog", catalog)
    why = f"{LEFT_OUT}4: hosts[1].identify: unknown key; did you mean identity?"
    assert lines(ended.err, ["admitted: ", why]), ended.err
