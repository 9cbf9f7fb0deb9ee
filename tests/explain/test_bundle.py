"""A support bundle tells strangers everything but secrets."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from meshfed.federation.explain.bundle import redacted, row, scrubbed, settings
from meshfed.federation.settings import Settings

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"postgresql+psycopg://mesh:{HIDDEN}@db/mesh", id="a password in a URL"),
        pytest.param(f"postgresql://db/mesh?user=mesh&password={HIDDEN}", id="as a parameter"),
        pytest.param(f"connection failed: password={HIDDEN} host=db", id="in what a driver says"),
        pytest.param(f"authorization: Bearer {HIDDEN}", id="a bearer token"),
        pytest.param(f"-----BEGIN EC PRIVATE KEY-----\n{HIDDEN}\n-----END EC PRIVATE KEY-----\n",
                     id="a private key"),
        pytest.param(f"-----BEGIN PRIVATE KEY-----\n{HIDDEN}", id="half a private key"),
    ],
)  # fmt: skip
def test_a_secret_is_taken_out_of_a_text(text: str) -> None:
    assert HIDDEN not in scrubbed(text)
    assert scrubbed(text) != text


def test_what_is_no_secret_stays() -> None:
    for text in ("sqlite:////var/lib/meshfed.db", "http://10.0.0.1:8080/here", "a key: value"):
        assert scrubbed(text) == text


@pytest.mark.parametrize("key", ["password", "api_key", "clientSecret", "token", "key", "PASSWD"])
def test_a_key_that_sounds_secret_hides_whatever_it_has(key: str) -> None:
    told = redacted({"providers": [{"name": "cloud", key: HIDDEN, "deep": {key: [HIDDEN]}}]})
    assert HIDDEN not in str(told)
    assert "cloud" in str(told)


def test_a_path_to_a_key_is_none() -> None:
    assert redacted({"key_file": "/etc/meshfed.key"}) == {"key_file": "/etc/meshfed.key"}


def test_a_header_that_a_policy_asks_for_may_be_an_api_key() -> None:
    told = row("mesh_access", {"policy": "shop/a", "headers": f"x-api-key: {HIDDEN}, accept: .*"})
    assert told["headers"] == "x-api-key: [redacted], accept: [redacted]"


def test_settings_without_passwords(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text(
        f"catalog: postgresql://mesh:{HIDDEN}@db.example/mesh\n"
        "providers:\n"
        f"  - {{name: rack, type: hosts, path: hosts.yaml, token: {HIDDEN}}}\n"
    )
    told = settings(Settings.read(file, {"MESHFED_KEY": HIDDEN * 7}))
    assert HIDDEN not in json.dumps(told, default=str)
    assert "db.example" in json.dumps(told, default=str)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_bundle_of_a_running_mesh_is_searched_for_its_secrets(world) -> None:
    file = world.mesh.folder / "support.tgz"
    ended = await world.ask("support", "bundle", file)
    assert (ended.code, ended.out) == (0, f"{file}\n"), ended.err
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as archive:
        members = {each.name: read(archive, each) for each in archive.getmembers()}
    everything = b"".join(members.values())
    keys = [*world.mesh.folder.glob("*.key"), *world.mesh.folder.glob("*/key.pem")]
    assert keys
    for secret in (line for key in keys for line in key.read_bytes().splitlines()):
        assert secret not in everything or b"PRIVATE KEY" in secret
    assert b"PRIVATE KEY" not in everything
    assert b"open-.*" not in everything
    views = {name for name in members if "/views/" in name}
    assert len(views) == 21
    proxies = json.loads(members["meshfed-support/views/mesh_proxies.json"])
    assert {each["workload"] for each in proxies} == {"caller", "stranger", "server", "spare"}
    assert any(s["step"] == "protected" for s in json.loads(members["meshfed-support/doctor.json"]))
    again = await world.ask("support", "bundle", file)
    assert (again.code, again.err) == (1, f"{file}: is there already: name another\n")


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return (archive.extractfile(member) or io.BytesIO()).read()
