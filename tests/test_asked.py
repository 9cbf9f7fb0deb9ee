"""Questions to the catalog of a `meshfed serve` that runs: answered, and nothing else."""

import asyncio
import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from live import Mesh
from strangers import Authority, connected, unpacked

from meshfed.federation.certificates.keys import read
from meshfed.federation.cli.main import main
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace
from meshfed.federation.demo.processes import environment
from meshfed.xds.resource import Type

HOSTS = """\
services:
  store.shop: {ports: {http: {number: 8080, target: 14001}}}
hosts:
  - {name: buyer, address: 127.0.8.1, identity: buyer.shop, interception: explicit}
  - {name: store-1, address: 127.0.8.2, service: store.shop, identity: store.shop}
  - {name: store-2, address: 127.0.8.3, service: store.shop, identity: store.shop}
"""
ENDPOINTS = "select address, port, identity from mesh_endpoints order by 1"
TOLD = [("127.0.8.2", 14001, "store.shop"), ("127.0.8.3", 14001, "store.shop")]
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) "


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("asked"), HOSTS, {})
    try:
        asyncio.run(made.serve())
        yield made
    finally:
        made.end()


def catalog(mesh: Mesh) -> Path:
    return mesh.folder / "meshfed.db"


def dump(mesh: Mesh) -> list[str]:
    """All that the database says, but for serve's own signs of life."""
    signs = ('INSERT INTO "replicas"', 'INSERT INTO "leadership"')
    with closing(sqlite3.connect(f"file:{catalog(mesh)}?mode=ro", uri=True)) as connection:
        return [line for line in connection.iterdump() if not line.startswith(signs)]


def command(mesh: Mesh, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "meshfed.federation.cli.main", *arguments],
        cwd=mesh.folder,
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Answered


def by_meshfed(mesh: Mesh) -> list[tuple[object, ...]]:
    with command(mesh, "sql", ENDPOINTS, "-o", "json") as asked:
        out, err = asked.communicate()
    assert (asked.returncode, err) == (0, "")
    return [tuple(row.values()) for row in json.loads(out)]


def by_sqlite3(mesh: Mesh) -> list[tuple[object, ...]]:
    tool = shutil.which("sqlite3")
    if tool is None:
        pytest.skip("sqlite3 is not installed")
    said = subprocess.run(
        [tool, catalog(mesh), ENDPOINTS], check=True, capture_output=True, text=True
    )
    assert said.stderr == ""
    rows = [line.split("|") for line in said.stdout.splitlines()]
    return [(address, int(port), identity) for address, port, identity in rows]


ASKED = pytest.mark.parametrize(
    "ask", [pytest.param(by_meshfed, id="meshfed sql"), pytest.param(by_sqlite3, id="sqlite3")]
)


@ASKED
def test_the_views_answer_while_it_serves(
    mesh: Mesh, ask: Callable[[Mesh], list[tuple[object, ...]]]
) -> None:
    assert ask(mesh) == TOLD


@ASKED
async def test_the_views_answer_while_it_writes(
    mesh: Mesh, ask: Callable[[Mesh], list[tuple[object, ...]]]
) -> None:
    before = await mesh.control.revision()
    asking = asyncio.create_task(asyncio.to_thread(ask, mesh))
    number = 0
    while not asking.done():
        number += 1
        late = f"  - {{name: late, address: 127.0.8.4, identity: late-{number}.shop}}\n"
        await mesh.change(lambda late=late: replace(mesh.hosts, HOSTS + late))
    assert await asking == TOLD
    await mesh.change(lambda: replace(mesh.hosts, HOSTS))
    assert await mesh.control.revision() == before + number + 1


# Attacked


REFUSED = {
    "a file of its own": "attach database 'stolen.db' as stolen",
    "a copy": "vacuum into 'copy.db'",
    "the schema": "pragma writable_schema = on",
    "the journal": "pragma journal_mode = delete",
    "the checkpoint": "pragma wal_checkpoint(truncate)",
    "the version": "pragma user_version = 7",
    "a pragma as a table": "select * from pragma_journal_mode('delete')",
    "an extension": "select load_extension('evil')",
    "a file of the system": "select writefile('copy.db', 'x')",
    "out of the transaction": "commit; insert into orders (provider) values ('rack')",
    "two statements": "select 1; delete from endpoints",
    "the lock": "begin exclusive",
    "a savepoint": "savepoint mine",
    "a row": "insert into orders (provider, paused) values ('rack', true)",
    "another row": "update state set permissive = true",
    "all rows": "delete from endpoints",
    "rows, in a select": "with gone as (select 1) delete from endpoints returning *",
    "a table": "drop table endpoints",
    "a trigger": "create temp trigger t after insert on changes begin delete from orders; end",
    "the statistics": "analyze",
    "the sealed key": "select sealed_key from authority",
    "the sealed key, aside": "select (select hex(sealed_key) from authority) from mesh_services",
    "all memory": "select length(hex(zeroblob(1000000000)))",
    "all memory, in rows": ENDLESS + "select zeroblob(1000000) from n",
    "the disk, to sort on": ENDLESS + "select i, zeroblob(1000000) z from n order by i desc",
}
ENDLESSLY = {
    "counting": ENDLESS + "select count(*) from n",
    # Of few rows, a trillion together: those that are joined are kept, and a fast machine would run
    # out of memory before it ran out of time.
    "joining": ENDLESS.replace("from n)", "from n where i < 10000)")
    + "select count(*) from n a, n b, n c where a.i + b.i + c.i < 0",
}


@pytest.mark.parametrize("statement", [pytest.param(sql, id=name) for name, sql in REFUSED.items()])
async def test_what_does_more_than_read_is_refused_in_one_line_and_writes_nothing(
    mesh: Mesh,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statement: str,
) -> None:
    monkeypatch.chdir(mesh.folder)
    before, files = dump(mesh), {each.name for each in mesh.folder.iterdir()}
    with pytest.raises(SystemExit) as ended:
        main(["sql", statement])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert len(said.err.splitlines()) == 1
    assert dump(mesh) == before
    assert {each.name for each in mesh.folder.iterdir()} == files
    mesh.process.running()


async def test_what_would_never_end_ends_and_delays_nobody(mesh: Mesh) -> None:
    before = dump(mesh)
    began = time.monotonic()
    running = [command(mesh, "sql", sql) for sql in ENDLESSLY.values()]
    try:
        assert dump(mesh) == before
        await mesh.change(lambda: replace(mesh.hosts, HOSTS.replace("127.0.8.3", "127.0.8.4")))
        await mesh.change(lambda: replace(mesh.hosts, HOSTS))
        assert all(each.poll() is None for each in running)
        for each in running:
            said = await asyncio.to_thread(each.communicate)
            assert (each.returncode, *said) == (1, "", "it took more than 5 s and was stopped\n")
    finally:
        for each in running:
            each.kill()
    assert time.monotonic() - began < 30  # five seconds each, on a machine that they share


# Kept


def spellings(secret: bytes) -> dict[str, bytes]:
    """How a secret could stand in a file."""
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret).rstrip(b"=")[:-1],  # its end depends on what follows
    }


def scalar(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The number that a private key is, as DER holds it."""
    return key.private_numbers().private_value.to_bytes(32)


async def secrets(mesh: Mesh) -> dict[str, bytes]:
    """Everything that the control plane must keep to itself, or tell one proxy alone."""
    authority = await Authority.of(mesh)
    seal = read(mesh.folder / "meshfed.key")
    assert seal is not None
    found = {"the root's": scalar(authority.key), "the seal": seal.secret}
    for name in ("buyer", "store-1"):
        async with connected(mesh, authority.papers(name)) as client:
            await client.everything()
            (own,) = map(unpacked, await client.told(Type.SECRET, "certificate"))
        text = own.tls_certificate.private_key.inline_bytes
        key = serialization.load_pem_private_key(text, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        found[f"{name}'s"] = scalar(key)
        found[f"{name}'s, as PEM"] = text.splitlines()[1]
    return found


async def test_no_file_and_no_page_holds_a_secret(mesh: Mesh) -> None:
    kept = await secrets(mesh)

    async def written() -> bool:
        """The proxies have come and gone, in the catalog too."""
        lines = [line for line in dump(mesh) if 'INTO "proxy_sync"' in line]
        return "claimed" in "\n".join(dump(mesh)) and not lines

    await until("the catalog's account", written)
    places = {path.name: path.read_bytes() for path in mesh.folder.iterdir() if path.is_file()}
    del places["meshfed.key"]
    assert {"meshfed.db", "meshfed.db-wal", "serve.log"} <= places.keys()
    places["a dump"] = "\n".join(dump(mesh)).encode()
    for page in ("/metrics", "/readyz", "/v1/proxies"):
        places[page] = (await mesh.control.get(page))[1].encode()
    assert b'INTO "authority"' in places["a dump"]
    assert b"BEGIN CERTIFICATE" in places["a dump"]
    found = [
        (place, name, spelling)
        for place, content in places.items()
        for name, secret in kept.items()
        for spelling, text in spellings(secret).items()
        if text in content
    ]
    assert found == []
    assert [place for place, content in places.items() if b"PRIVATE KEY" in content] == []


def test_nobody_else_may_read_what_is_kept(mesh: Mesh) -> None:
    private = [mesh.folder / name for name in ("meshfed.db", "meshfed.db-wal", "meshfed.key")]
    assert [path.name for path in private if path.stat().st_mode & 0o077] == []
