"""Machines that were off for two days: their certificates have ended, and they are booted.

Nobody waits for two days: it was a control plane with another clock that let them in.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import imds
import live
import pytest
from answering import COUNTED
from applications import Web, listening
from attesting import INTER, ROOT, Document
from cryptography.hazmat.primitives.serialization import Encoding
from joining import Ground, grounded

from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.admin.app import bound
from meshfed.federation.agent import unit
from meshfed.federation.agent.envoy import binary, programs, running
from meshfed.federation.certificates.authority import LocalAuthority, pkcs8, root
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.demo.folder import replace as rewrite
from meshfed.federation.join.machine import join
from meshfed.federation.join.open import desk
from meshfed.federation.join.papers import Papers, keep
from meshfed.federation.join.secret import Secret
from meshfed.federation.join.server import serve

AGO = timedelta(hours=48)
LIFE = "1d"
OURS, THEIRS = (f"00000000-0000-0000-0000-00000000000{each}" for each in "ab")
BUYER = "127.0.52.1"
HOSTS = f"""
hosts:
  - {{name: buyer, address: {BUYER}, bind: {BUYER}, identity: buyer.live}}
"""
MACHINES = ("azure", "kept", "once", "theirs")
(PORT,) = free_ports(1)  # of their applications, each at its own address


def policy(name: str, subscription: str) -> dict[str, object]:
    serves = {"identity": f"{name}.live", "service": [f"{name}.live:{PORT}"]}
    return {"name": name, "method": "azure-attested", "subscription": subscription, **serves}


@pytest.fixture(scope="module")
def azure() -> Iterator[dict[str, imds.Service]]:
    """What attests which machine one is, on those of Azure."""
    with imds.serving("azure") as ours, imds.serving("theirs") as theirs:
        found = {"azure": (ours, OURS), "theirs": (theirs, THEIRS)}
        for name, (service, subscription) in found.items():
            genuine = Document(vm_id=name, subscription=subscription, beside=(INTER,))
            service.attests = lambda nonce, genuine=genuine: replace(genuine, nonce=nonce).der
        yield {name: service for name, (service, _) in found.items()}


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, azure: dict[str, imds.Service]
) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("off")
    (folder / "azure.pem").write_bytes(ROOT.public_bytes(Encoding.PEM))
    both = [policy("azure", OURS), policy("theirs", THEIRS)]
    said = {"azure_roots": "azure.pem", "lifetime": LIFE, "lease": "1s", "gone": "1s"}

    def before(ground: Ground) -> None:
        asyncio.run(two_days_ago(ground, azure))
        ground.mesh.written["join"] |= {"policies": both[:1]}  # the second is no longer let in
        rewrite(ground.mesh.config, json.dumps(ground.mesh.written))

    with grounded(folder, HOSTS, "127.0.52", before=before, policies=both, **said) as ground:
        yield ground


async def two_days_ago(ground: Ground, azure: dict[str, imds.Service]) -> None:
    """There was a control plane, and they joined."""

    def then() -> float:
        return time.time() - AGO.total_seconds()

    settings = ground.settings
    domain, listen = settings.mesh.trust_domain, settings.join.listen
    assert listen is not None
    migrate(settings.catalog)
    certificate, key = root(domain, datetime.now(UTC) - timedelta(days=30))
    control = await ControlPlane.open(LocalAuthority(certificate, key), domain, timedelta(days=1))
    with closing(Catalog(settings.catalog, clock=then)) as catalog, closing(bound(listen)) as door:
        sealed = settings.certificates.seal.close(pkcs8(key))
        await catalog.keep_authority(pem((certificate,)), sealed)
        issuer = LocalAuthority(certificate, key, then)
        made = desk(settings, catalog, issuer, lambda: settings.xds.listen.port)
        serving = asyncio.create_task(serve(made, door, control, COUNTED))
        try:
            await asyncio.to_thread(join_all, ground, azure)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


def join_all(ground: Ground, azure: dict[str, imds.Service]) -> None:
    for name in MACHINES:
        out, address = ground.folder / name, next(ground.addresses)
        token = ground.token(9, f"{name}.live", f"{name}.live:{PORT}")
        server = ground.server.believed_by(Secret.parse(token).pin)
        asked = {"untrusted_name": name}
        if name in azure:
            join(server, out, asked, None, [address], azure[name].url)
            continue
        join(server, out, {**asked, "token": token}, None, [address])
        if name == "kept":
            keep(out, token)


@dataclass
class Booted:
    """What systemd starts on a machine that is switched on."""

    papers: Path
    log: Path

    def __post_init__(self) -> None:
        self.agent = live.Process(unit.command(self.papers), self.log)

    def said(self, words: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            self.agent.running()
            lines = self.log.read_text().splitlines()
            return [words in line for line in lines if "certificate not renewed" in line] == [True]

        return look

    def end(self) -> None:
        self.agent.end()
        if (left := running(self.papers / "envoy.yaml", programs(binary()))) is not None:
            os.kill(left, signal.SIGKILL)


async def test_whom_a_policy_lets_in_again_serves_and_the_others_are_told_why_in_one_line(
    ground: Ground,
) -> None:
    for name in MACHINES:
        held = Papers.read(ground.folder / name)
        assert held is not None
        assert not held.valid(time.time())
    await ground.mesh.start("buyer")
    await until("the end of their registrations", there(ground, ()))
    booted = {
        name: Booted(ground.folder / name, ground.folder / f"{name}.log") for name in MACHINES
    }
    try:
        async with listening(Web("here"), "127.0.0.1", PORT):
            for name in ("azure", "kept"):
                await until(f"an answer of {name}", answered(ground, name))
        assert await there(ground, ("azure", "kept"))()
        ended = "the certificate of once ended at"
        await until("a word to a person", booted["once"].said(ended))
        why = "document: no policy lets in machine theirs of"
        await until("a word to another", booted["theirs"].said(why))
        told = [change for name, change in ground.told() if name == "theirs"]
        assert told[-1].startswith("refused: document: no policy lets in machine theirs")
    finally:
        for each in booted.values():
            each.end()


def there(ground: Ground, names: tuple[str, ...]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        asked = "select name from mesh_workloads where joined_by is not null order by name"
        found = (await asyncio.to_thread(query, ground.url, asked)).rows
        return tuple(name for (name,) in found) == names

    return look


def answered(ground: Ground, name: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        async with ground.mesh.sidecars["buyer"].http() as client:
            got = await client.get("/", headers={"host": f"{name}.live:{PORT}"})
        return got.status_code == 200

    return look
