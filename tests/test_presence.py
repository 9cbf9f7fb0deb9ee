"""Who finds the catalog away says so, for as long as it asks for it and no longer."""

import asyncio
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.demo.control import until
from meshfed.federation.heed import heed
from meshfed.federation.presence import Presence
from meshfed.federation.settings import Settings
from meshfed.federation.sources import Sources

CONFIGURATION = """
providers: [{name: rack, type: hosts, path: hosts.yaml}]
specification: [{type: files, path: policy.yaml}]
"""


async def test_a_leader_that_is_deposed_while_the_catalog_is_away_misses_it_no_more(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.db"
    for name in ("hosts.yaml", "policy.yaml"):
        (tmp_path / name).write_text("# nothing yet\n")
    (tmp_path / "meshfed.yaml").write_text(CONFIGURATION)
    settings = Settings.read(tmp_path / "meshfed.yaml", {})
    metrics = Metrics(registry := CollectorRegistry())
    presence = Presence(metrics)
    migrate(url)
    with closing(Catalog(url)) as catalog, capture_logs() as logs:
        await catalog.read()
        (tmp_path / "catalog.db").unlink()
        sources = Sources(settings, catalog, presence, metrics)
        duties = (heed(settings, catalog, presence), sources.run(catalog))
        term = [asyncio.create_task(duty) for duty in duties]

        async def missed_by_all() -> bool:
            away = {line["who"] for line in logs if line["event"] == "catalog away"}
            return away == {"configuration", "rack", "files:policy.yaml"}

        await until("what all of them miss", missed_by_all)
        assert registry.get_sample_value("meshfed_catalog_away") == 1
        for duty in term:
            duty.cancel()
        await asyncio.wait(term)
    assert presence.trouble == ""
    assert registry.get_sample_value("meshfed_catalog_away") == 0
