"""Faults of a `meshfed serve`: killed in the middle, stopped, kept from its ports and its disk."""

import asyncio
import random
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from itertools import count
from pathlib import Path

import disks
import grpc
import pytest
import yaml
from live import Mesh, Process
from strangers import Authority, connected

from meshfed.catalog.reader import query
from meshfed.federation.demo.control import command, until
from meshfed.federation.demo.folder import Folder, replace
from meshfed.xds.resource import Type

HOSTS = 8
POLICY = """\
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {{name: stores, namespace: shop}}
spec:
  service: stores
  backends: [{{service: store-0, weight: {weight}}}, {{service: store-1, weight: 1}}]
"""


def hosts(step: int) -> str:
    """A list that differs at every step, by few enough hosts to be believed."""
    lines = [
        f"  - {{name: store-{n}, address: 127.0.9.{n + 1}, service: store-{n % 4}.shop, port: 80,"
        f" identity: store-{n % 4}.shop, weight: {1 + (step + n) % 5}}}\n"
        for n in range(HOSTS)
        if n != step % HOSTS
    ]
    return (
        "services: {stores.shop: {ports: {http: 80}}}\n"
        "hosts:\n  - {name: buyer, address: 127.0.9.100, identity: buyer.shop}\n" + "".join(lines)
    )


KNOWN = (
    "select address, weight from mesh_endpoints where not stale"
    " union all select backend, weight from mesh_splits"
)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Mesh]:
    made = Mesh(folder, hosts(0), {"split.yaml": POLICY.format(weight=1)})
    try:
        await made.serve()
        yield made
    finally:
        made.end()


def url(mesh: Mesh) -> str:
    return f"sqlite:///{mesh.folder / 'meshfed.db'}"


async def weights(mesh: Mesh) -> set[tuple[object, ...]]:
    """What the catalog says of the host list, and of the policy."""
    return set((await asyncio.to_thread(query, url(mesh), KNOWN)).rows)


def written(step: int) -> set[tuple[object, ...]]:
    listed = {(f"127.0.9.{n + 1}", 1 + (step + n) % 5) for n in range(HOSTS) if n != step % HOSTS}
    return listed | {("store-0.shop", 1 + step), ("store-1.shop", 1)}


def edit(mesh: Mesh, step: int) -> None:
    replace(mesh.hosts, hosts(step))
    replace(mesh.folder / "policy" / "split.yaml", POLICY.format(weight=1 + step))


# Killed


def sound(mesh: Mesh) -> int:
    """The newest revision of a catalog that is whole, and whose history has no gaps."""
    with closing(sqlite3.connect(mesh.folder / "meshfed.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        (newest,) = connection.execute("select revision from state").fetchone()
        told = connection.execute("select distinct revision from changes order by 1").fetchall()
        assert [revision for (revision,) in told if revision] == list(range(1, newest + 1))
        torn = connection.execute(
            "select * from endpoints where valid_to_revision <= valid_from_revision"
            " or valid_to_revision > :newest or valid_from_revision > :newest",
            {"newest": newest},
        ).fetchall()
        assert torn == []
        # Versions of one endpoint follow each other: never two at a time.
        double = connection.execute(
            "select * from endpoints a join endpoints b on a.id < b.id"
            " and (a.provider, a.scope, a.service, a.port, a.address, a.target)"
            " = (b.provider, b.scope, b.service, b.port, b.address, b.target)"
            " and coalesce(a.valid_to_revision, 1e9) > b.valid_from_revision"
        ).fetchall()
        assert double == []
        return newest


@pytest.mark.parametrize("rounds", [1, pytest.param(30, marks=pytest.mark.soak)])
async def test_killed_at_any_moment_it_comes_back_whole(tmp_path: Path, rounds: int) -> None:
    moments, steps = random.Random(20), count(1)
    async with served(tmp_path) as mesh:
        newest = 0
        for _ in range(rounds):
            until_then = time.monotonic() + moments.uniform(0.05, 0.6)
            while time.monotonic() < until_then:
                edit(mesh, next(steps))
                await asyncio.sleep(moments.uniform(0, 0.03))  # as people and programs do
            mesh.process.running()
            mesh.process.kill()
            newest, before = sound(mesh), newest
            assert newest > before
            last = next(steps)
            edit(mesh, last)  # while it is away
            await mesh.serve()
            await until("the files to be believed", lambda last=last: believed(mesh, last))
            assert sound(mesh) > newest


async def believed(mesh: Mesh, step: int) -> bool:
    mesh.process.running()
    return await weights(mesh) == written(step)


# Stopped


async def test_sigterm_ends_streams_and_then_it(tmp_path: Path) -> None:
    async with served(tmp_path) as mesh, AsyncExitStack() as streams:
        authority = await Authority.of(mesh)
        clients = [
            await streams.enter_async_context(connected(mesh, authority.papers("buyer"), delta=d))
            for d in (True, False, True)
        ]
        for client in clients:
            await client.told(Type.CLUSTER, "*")
        began = time.monotonic()
        mesh.process.popen.send_signal(signal.SIGTERM)
        for client in clients:
            code, why = await client.ending()
            assert code == grpc.StatusCode.UNAVAILABLE
            assert "draining" in why
        assert await asyncio.to_thread(mesh.process.popen.wait, 5) == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in mesh.process.log.read_text()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"serve.log"}


@pytest.mark.parametrize("door", ["xds", "admin"])
async def test_a_taken_port_is_one_line_and_nothing_is_written(tmp_path: Path, door: str) -> None:
    mesh = Mesh(tmp_path, hosts(0), {})
    before = files(tmp_path)
    address = str(mesh.written[door]["listen"])
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        serve = Process(command(Folder(tmp_path, "", "")), tmp_path / "serve.log")
        assert await asyncio.to_thread(serve.popen.wait, 10) == 1
    said = [line for line in serve.log.read_text().splitlines() if line[0] != "{"]
    assert len(said) == 1
    assert address in said[0]
    assert files(tmp_path) == before


# Kept from its disk


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(False, id="the catalog's"),
        pytest.param(True, id="its log's too", marks=pytest.mark.soak),
    ],
)
async def test_a_full_disk_costs_nothing_but_time(tmp_path: Path, log: bool) -> None:
    async with served(tmp_path) as mesh:
        authority = await Authority.of(mesh)
        papers = authority.papers("buyer")
        edit(mesh, 1)
        await until("the files to be believed", lambda: believed(mesh, 1))
        async with connected(mesh, papers) as before:
            world = await before.everything()
            hard = resource.prlimit(mesh.process.popen.pid, resource.RLIMIT_FSIZE)[1]
            full = 1 if log else (mesh.folder / "meshfed.db-wal").stat().st_size
            assert log or full > len(mesh.process.log.read_bytes()) + 20_000
            resource.prlimit(mesh.process.popen.pid, resource.RLIMIT_FSIZE, (full, hard))
            edit(mesh, 2)
            await until("it to say so", lambda: away(mesh))
            assert await weights(mesh) == written(1)
            assert not before.call.done()
            async with connected(mesh, papers) as after:
                assert await after.everything() == world
            resource.prlimit(mesh.process.popen.pid, resource.RLIMIT_FSIZE, (hard, hard))
            await until("the files to be believed", lambda: believed(mesh, 2))
            await until("it to say no more", lambda: back(mesh))
            assert not before.call.done()
        sound(mesh)


@asynccontextmanager
async def on_a_disk_of_its_own(folder: Path, mounts: str) -> AsyncIterator[Mesh]:
    """Its catalog alone, in the folder `disk`."""
    made = Mesh(folder, hosts(0), {"split.yaml": POLICY.format(weight=1)})
    replace(made.config, yaml.safe_dump({**made.written, "catalog": "sqlite:///disk/meshfed.db"}))
    try:
        serve = disks.mounted(mounts, command(Folder(folder, "", "")))
        made.process = Process(serve, folder / "serve.log")
        await until("the control plane's start", made.serving)
        yield made
    finally:
        made.end()


async def authority_on(disk: Path, mesh: Mesh) -> Authority:
    """From a copy, which here is where the catalog is for the control plane."""
    copy = mesh.folder / "copy.db"
    file, pid = disk / "meshfed.db", mesh.process.popen.pid
    await asyncio.to_thread(disks.asked, pid, file, f"vacuum into '{copy}'")
    copy.rename(file)
    return await Authority.of(mesh)


async def on_disk(mesh: Mesh, step: int) -> bool:
    """Whether the catalog on a disk of its own says what the files said at some step."""
    mesh.process.running()
    file = mesh.folder / "disk" / "meshfed.db"
    found = await asyncio.to_thread(disks.asked, mesh.process.popen.pid, file, KNOWN)
    return {tuple(row) for row in found} == written(step)


async def test_a_disk_that_is_really_full_costs_nothing_but_time(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    async with on_a_disk_of_its_own(tmp_path, disks.small(disk, "16m")) as mesh:
        world = partial(asyncio.to_thread, disks.beside, mesh.process.popen.pid)
        edit(mesh, 1)
        await until("the files to be believed", lambda: on_disk(mesh, 1))
        papers = (await authority_on(disk, mesh)).papers("buyer")
        async with connected(mesh, papers) as before:
            told = await before.everything()
            await world("sh", "-c", f"! cat /dev/zero > '{disk}/ballast'")
            edit(mesh, 2)
            await until("it to say so", lambda: away(mesh))
            assert "database or disk is full" in mesh.process.log.read_text()
            assert await on_disk(mesh, 1)
            assert not before.call.done()
            async with connected(mesh, papers) as after:
                assert await after.everything() == told
            await world("rm", disk / "ballast")
            await until("the files to be believed", lambda: on_disk(mesh, 2))
            await until("it to say no more", lambda: back(mesh))
            assert not before.call.done()


async def test_a_disk_that_breaks_and_is_repaired_costs_no_restart(tmp_path: Path) -> None:
    """What the kernel does after an error: all is read-only, for ever. Repaired, it is another."""
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    mount = disks.breakable(disk, image)
    async with on_a_disk_of_its_own(tmp_path, mount) as mesh:
        world = partial(asyncio.to_thread, disks.beside, mesh.process.popen.pid)
        edit(mesh, 1)
        await until("the files to be believed", lambda: on_disk(mesh, 1))
        papers = (await authority_on(disk, mesh)).papers("buyer")
        async with connected(mesh, papers) as before:
            told = await before.everything()
            await world("sync")
            await world("mount", "-o", "remount,abort", disk)
            edit(mesh, 2)
            await until("it to say so", lambda: away(mesh))
            async with connected(mesh, papers) as after:
                assert await after.everything() == told
            await world("umount", "--lazy", disk)

            async def released() -> bool:  # by `serve`; else it could not be repaired
                return not await world("/sbin/losetup", "--associated", image)

            await until("the disk to be let go", released)
            await world("sh", "-c", f"/sbin/e2fsck -fp '{image}' || test $? -le 1; {mount}")
            await until("the files to be believed", lambda: on_disk(mesh, 2))
            await until("it to say no more", lambda: back(mesh))
            assert not before.call.done()


async def away(mesh: Mesh) -> bool:
    mesh.process.running()
    return await says_away(mesh) == (True, True)


async def back(mesh: Mesh) -> bool:
    return await says_away(mesh) == (False, False)


async def says_away(mesh: Mesh) -> tuple[bool, bool]:
    """Whether readiness names it, and the metric shows it."""
    _, ready = await mesh.control.get("/readyz")
    _, metrics = await mesh.control.get("/metrics")
    return "catalog is away" in ready, "\nmeshfed_catalog_away 1.0\n" in metrics
