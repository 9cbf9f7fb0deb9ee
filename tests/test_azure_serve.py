"""Azure as a person has it: `meshfed serve`, a Resource Manager over TLS, and a real Envoy."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import live
import pytest
import yaml
from arm.fleet import ALL, OTHERS, STORE, fleet, instance

from meshfed.catalog.reader import query
from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, vm
from meshfed.demo.arm.server import ENVIRONMENT, Server
from meshfed.federation.cli.main import main
from meshfed.federation.demo import envoys
from meshfed.federation.demo.control import until
from meshfed.federation.demo.platforms import clusters

CALLER = "127.0.44.1"
HOSTS = (
    f"hosts:\n  - {{name: caller, identity: caller.live, address: {CALLER}, bind: {CALLER},"
    f" application: {CALLER}}}\n"
)
READS = "meshfed_provider_remaining_reads"


@pytest.fixture
async def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path, fleet())
    server.world.left = {"x-ms-ratelimit-remaining-subscription-reads": 240}
    server.begin()
    yield server
    server.end()


def dialled() -> set[str]:
    """The bookstore's addresses in the caller's Envoy."""
    found = clusters(envoys.clusters(CALLER))
    return {
        at for name, there in found.items() if name.startswith("bookstore.shop") for at in there
    }


def doctor(config: Path) -> str:
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()), suppress(SystemExit):
        main(["doctor", "--config", str(config)])
    return out.getvalue()


async def test_all_that_changes_between_two_looks_ends_right_in_a_real_envoy(
    azure: Server, tmp_path: Path
) -> None:
    """Scaled in and out, deallocated, imaged anew, tagged otherwise, and with another interface."""
    folder = tmp_path / "mesh"
    folder.mkdir()
    made = live.Mesh(folder, HOSTS, {})
    options = {"subscriptions": [SUBSCRIPTION], "cloud": azure.cloud, "auth": "client_secret"}
    made.written["mesh"] = {"trust_domain": live.DOMAIN, "permissive": True}
    made.written["providers"] += [{"name": "weu", "type": "azure", "refresh": "1s", **options}]
    live.replace(made.config, yaml.safe_dump(made.written))

    async def told(wanted: set[str]) -> None:
        async def same() -> bool:
            return await asyncio.to_thread(dialled) == wanted

        await until(f"{sorted(wanted)} at the caller's Envoy", same)

    async def counted() -> bool:
        of = {"bucket": "subscription-reads", "part": SUBSCRIPTION, "provider": "weu"}
        return await made.metric(READS, **of) == 240.0

    try:
        await made.serve()
        await made.start("caller")
        await told(ALL)
        await until("what is left to read", counted)
        said = await asyncio.to_thread(doctor, made.config)
        assert re.search(f"weu/{SUBSCRIPTION}.*all that is needed may be read", said)
        assert "96% of what may be asked is left" in said
        machines = {each.name: each for each in azure.world.resources.vms}
        uniform = azure.world.resources.sets[3]
        machines["vm-1"].power = "deallocated"
        machines["vm-2"].tags = dict(OTHERS)
        machines["vm-3"].nics = [Nic("new", [Ip("10.0.0.77")])]
        machines["vm-4"].power, machines["vm-4"].provisioning = "starting", "Updating"
        uniform.instances.append(instance(2))
        azure.world.resources.vms.append(vm("vm-7", "10.0.0.7", STORE))
        left = (ALL - {"10.0.0.1", "10.0.0.2", "10.0.0.3"}) | {"10.0.0.77", "10.1.0.2", "10.0.0.7"}
        await told(left)
        sql = "select address from mesh_endpoints where service = 'bookstore.shop'"
        rows = query(f"sqlite:///{folder}/meshfed.db", sql).rows
        assert {address for (address,) in rows} == left
        sql = "select address from mesh_endpoint_history where change = 'joined'"
        joined = Counter(at for (at,) in query(f"sqlite:///{folder}/meshfed.db", sql).rows)
        assert set(joined.values()) == {1}  # nobody came back
    finally:
        made.end()
