"""docs/maintain.md: its very lines, run by a shell, one after another."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres import started

from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.keys import Seal

Run = Callable[..., Any]  # how it ended: code, out, err, lines
PAGE = (Path(__file__).parents[2] / "docs" / "maintain.md").read_text()
NAMED = "postgresql+psycopg://meshfed@db/meshfed"
ENDPOINTS = "select address from mesh_endpoints order by 1"


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Each heading, and the lines for a shell below it."""
    for section in page.split("\n## ")[1:]:
        yield (
            section.partition("\n")[0],
            "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)),
        )


def test_every_task_has_its_lines() -> None:
    assert [name for name, lines in sections(PAGE) if lines] == [
        "Back up",
        "Upgrade",
        "Roll back",
        "Restore",
        "Prune",
        "Rotate",
        "Move to Postgres",
        "Let people read",
    ]


@pytest.fixture
def machine(meshfed: Run, shop: str, tmp_path: Path) -> Callable[[str], None]:
    """Runs a line on a machine that has this meshfed, a pip without a newer one, and a unit."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "meshfed.yaml").write_text(
        "mesh: {trust_domain: shop.example}\n"
        "admin: {listen: 127.0.0.1:0}\n"
        "xds: {listen: 127.0.0.1:0}\n"
    )

    async def authority() -> None:
        with closing(Catalog(shop)) as catalog:
            seal = Seal(tmp_path / "meshfed.key")
            await LocalAuthority.open(trust_domain="shop.example", safe=catalog, seal=seal)

    def run(line: str) -> None:
        match shlex.split(line):
            case ["meshfed", *arguments]:
                ended = meshfed(*arguments)
                found = arguments[0] == "doctor"  # that no `serve` runs, which is true
                assert ended.code == found, f"{line}: {ended.err}"
            case ["systemctl", "start" | "restart", _]:
                assert meshfed("migrate").code == 0  # as `serve` does first
            case ["systemctl", "stop", _] | ["pip", "install", *_]:
                pass
            case command:
                subprocess.run(command, check=True)

    asyncio.run(authority())
    return run


def test_the_page_does_what_it_says(
    shop: str, machine: Callable[[str], None], tmp_path: Path
) -> None:
    before = query(shop, ENDPOINTS).rows
    with started() as server:
        with psycopg.connect(server.url.replace("+psycopg", "")) as admin:
            admin.execute("create role ann login")
        for name, lines in sections(PAGE):
            script = lines.replace(NAMED, server.url)
            for folder in ("/run/secrets/", "/etc/meshfed/"):
                script = script.replace(folder, f"{tmp_path}/")
            for line in script.splitlines():
                machine(line)
            assert query(shop, ENDPOINTS).rows == before, name
        assert (tmp_path / "store-1" / "envoy.yaml").exists()
        for there in (server.url, f"sqlite:///{tmp_path}/back.db"):
            assert query(there, ENDPOINTS).rows == before
        ann = server.url.replace("postgres@", "ann@")
        assert query(ann, ENDPOINTS).rows == before
