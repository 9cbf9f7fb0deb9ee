"""Commands load what they need: whoever types one waits for the imports of no other."""

import subprocess
import sys
from pathlib import Path

import pytest

CATALOG = {"alembic", "psycopg", "sqlalchemy"}
PLATFORMS = {"aiohttp", "azure", "dns", "h2", "kubernetes"}
SERVERS = {"envoy", "fastapi", "google.protobuf", "grpc", "structlog", "uvicorn"}
KEYS = {"cryptography"}
HOSTS = "hosts: [{name: one, address: 192.0.2.1, service: a.b, port: 80, identity: a.b}]\n"

COMMAND = """
import sys
from meshfed.federation.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("loaded:", *sys.modules, file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """The modules that a process has which ran a command."""
    command = [sys.executable, "-c", COMMAND, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize(
    ("line", "spared"),
    [
        pytest.param(
            "--help",
            CATALOG | PLATFORMS | SERVERS | KEYS | {"asyncio", "pydantic", "yaml"},
            id="help is the command line alone",
        ),
        pytest.param(
            "get endpoints",
            CATALOG | PLATFORMS | SERVERS | KEYS | {"meshfed.federation.cli.serve"},
            id="a listing is no other command, and asks SQLite itself",
        ),
        pytest.param("validate hosts.yaml", CATALOG | PLATFORMS | SERVERS, id="files need no mesh"),
        pytest.param(
            "proxy bootstrap store-1",
            {"alembic", "psycopg"} | PLATFORMS | SERVERS,
            id="papers need the catalog's own driver, and no migration",
        ),
    ],
)
@pytest.mark.usefixtures("shop")  # whose store-1 has papers written
def test_a_command_loads_what_it_needs(
    line: str, spared: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHFED_MESH__TRUST_DOMAIN", "shop.example")
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    assert loaded(*line.split()) & spared == set()
