"""`why` says by which rule somebody owns an endpoint, and at which priority each caller has it."""

import asyncio
import json
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Locality,
    Port,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.preferences import Preference, Preferences
from meshfed.catalog.store import Catalog, migrate

WEB = ServiceName("web", "shop")
OWNED = Preferences(Preference(owners=("rack",)))
NEAREST = Preferences(Preference(prefer=("same-zone",)))


def listed(provider: str, who: str, **zones: str) -> Known:
    """Hosts by the last part of their address; who calls, and is called."""
    scope, identity = f"{provider}/hosts.yaml", Identity(who, "shop")
    hosts = [
        Workload(
            name, provider, scope, identity=identity, addresses=(f"127.0.6.{name[1:]}",),
            locality=Locality.parse(zone),
        )
        for name, zone in zones.items()
    ]  # fmt: skip
    there = [
        Endpoint(
            WEB, 80, host.addresses[0], 80, host.id, provider, scope, identity=identity,
            locality=host.locality,
        )
        for host in hosts
    ]  # fmt: skip
    services = frozenset({Service(WEB, (Port(80),))})
    return Known(provider, scope, services, frozenset(hosts), frozenset(there))


async def explained(
    command, folder: Path, about: str, rules: Preferences, *lists: Known
) -> dict[str, list[str]]:
    url = f"sqlite:///{folder}/meshfed.db"
    migrate(url)
    with closing(Catalog(url)) as catalog:
        await catalog.configure("shop.example", permissive=True, federation=rules)
        for each in lists:
            await catalog.believe(each, kind="hosts", cause="")
    found: defaultdict[str, list[str]] = defaultdict(list)
    said = await asyncio.to_thread(command, "why", about, "--catalog", url, "-o", "json")
    for step in json.loads(said.out):
        found[step["step"]].append(f"{step['state']}: {step['what']}")
    return found


@pytest.mark.parametrize(
    ("rules", "other", "owned"),
    [
        pytest.param(
            OWNED, "web", "note: rack owns it by federation.owners, and cloud claims it too",
            id="as somebody wants it",
        ),
        pytest.param(
            OWNED, "thief",
            "failing: rack owns it by federation.owners, and cloud claims it too, as thief.shop",
            id="but who it is must not be disputed",
        ),
        pytest.param(
            Preferences(), "web", "warning: cloud owns it, and rack claims it too",
            id="by nobody's decision",
        ),
    ],
)  # fmt: skip
async def test_an_owner_is_told_with_the_rule(command, tmp_path, rules, other, owned):
    lists = (listed("rack", "web", h1=""), listed("cloud", other, h1=""))
    found = await explained(command, tmp_path, "127.0.6.1", rules, *lists)
    assert found["admitted"][0] == owned


async def test_each_callers_priority_is_told_in_one_line(command, tmp_path):
    hosts = listed("rack", "web", h1="eu/1", h2="eu/2", h3="")
    found = await explained(command, tmp_path, "127.0.6.3", NEAREST, hosts)
    told = "ok: at priority 0 for web.shop; 1 for web.shop in eu/1, web.shop in eu/2"
    assert found["preferred"] == [told]
    found = await explained(command, tmp_path, "127.0.6.1", Preferences(), hosts)
    assert found["preferred"] == []
