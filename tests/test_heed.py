"""The configuration while the control plane runs: some of it is heeded, the rest is named."""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meshfed.catalog.model import Known, Port, Service, ServiceName
from meshfed.catalog.preferences import NO_PREFERENCES, Preference, Preferences
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.heed import heed
from meshfed.federation.presence import Presence
from meshfed.federation.settings import Settings

STRICT, OPEN = (f"mesh: {{trust_domain: shop.example, permissive: {p}}}\n" for p in ("no", "yes"))


@dataclass
class Heeded:
    """A configuration that is heeded, and the catalog behind it."""

    file: Path
    catalog: Catalog

    def replace(self, text: str) -> None:
        draft = self.file.with_name("draft")
        draft.write_text(text)
        draft.replace(self.file)

    async def until(self, **settings: object) -> None:
        async with asyncio.timeout(10), aclosing(self.catalog.follow()) as revisions:
            async for _ in revisions:
                mesh = await self.catalog.read()
                if all(getattr(mesh, name) == value for name, value in settings.items()):
                    return


@pytest.fixture
async def heeded(tmp_path: Path) -> AsyncIterator[Heeded]:
    file = tmp_path / "meshfed.yaml"
    file.write_text(STRICT)
    url = f"sqlite:///{tmp_path}/catalog.db"
    migrate(url)
    catalog = Catalog(url)
    await catalog.configure("shop.example", permissive=False)
    presence = Presence(Metrics(CollectorRegistry()))
    running = asyncio.create_task(heed(Settings.read(file, {}), catalog, presence))
    await asyncio.sleep(0)
    yield Heeded(file, catalog)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    catalog.close()


async def test_permissive_is_turned_on_and_off(heeded: Heeded) -> None:
    heeded.replace(OPEN)
    await heeded.until(permissive=True)
    heeded.replace(STRICT)
    await heeded.until(permissive=False)


async def test_the_rules_of_the_federation_are_heeded(heeded: Heeded) -> None:
    heeded.replace(STRICT + "federation: {prefer: [azure, vm], services: {a.b: {prefer: []}}}\n")
    rules = Preferences(Preference(prefer=("azure", "vm")), {"a.b": Preference()})
    await heeded.until(preferences=rules)
    heeded.replace(STRICT)
    await heeded.until(preferences=NO_PREFERENCES)


async def test_virtual_ips_are_given_from_other_ranges_once_they_are_edited(
    heeded: Heeded,
) -> None:
    web = Service(ServiceName("web", "shop"), (Port(80),))
    known = Known("rack", "rack/all", frozenset({web}))
    await heeded.catalog.believe(known, kind="hosts", cause="")
    for ranges, given in (
        ("[240.1.0.0/16]", ("240.1.0.1",)),
        ("['fd00::/64', 240.1.0.0/16]", ("fd00::1", "240.1.0.1")),
        ("[]", ()),
    ):
        heeded.replace(STRICT.replace("{", f"{{virtual_ranges: {ranges}, "))
        await heeded.until(services={web.name: dataclasses.replace(web, virtual=given)})


async def test_other_keys_are_named_as_needing_a_restart(heeded: Heeded) -> None:
    with capture_logs() as told:
        heeded.replace(OPEN.replace("shop", "other") + "xds: {listen: '127.0.0.1:1'}\n")
        await heeded.until(permissive=True, trust_domain="shop.example")
    named = [line["keys"] for line in told if line["event"] == "restart needed"]
    assert named == ["mesh.trust_domain, xds.listen"]


async def test_a_broken_configuration_changes_nothing(heeded: Heeded) -> None:
    heeded.replace("mesh: [")
    heeded.replace(OPEN)
    await heeded.until(permissive=True)


async def test_it_is_heeded_behind_a_link(heeded: Heeded, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.yaml"
    real.write_text(STRICT)
    heeded.file.unlink()
    heeded.file.symlink_to(real)
    real.write_text(OPEN)
    await heeded.until(permissive=True)


async def test_a_neighbour_whose_name_is_not_text_does_no_harm(heeded: Heeded) -> None:
    heeded.file.with_name(os.fsdecode(b"caf\xe9")).write_text("")
    heeded.replace(OPEN)
    await heeded.until(permissive=True)
