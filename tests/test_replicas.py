"""Several `serve` on one Postgres: whatever happens to them, proxies have what they should have."""

import asyncio
import json
import shutil
import signal
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest
import yaml
from fleet import Proxy
from live import Mesh, Process
from pooler import pooled
from postgres import Postgres, started
from sqlalchemy import text
from sqlalchemy.engine import make_url
from strangers import Authority, context, dialled

import meshfed
from meshfed.catalog.database import LOCK, Database
from meshfed.catalog.follow import REVISION
from meshfed.catalog.leadership import take
from meshfed.catalog.migrating import meanings, number
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.demo.control import command, until
from meshfed.federation.demo.folder import Folder, replace
from meshfed.federation.explain.wait import waited
from meshfed.xds.resource import Type

WITHIN = 5.0  # seconds: for a take-over, and for what is gone to be gone everywhere
AWAY = 30.0  # seconds that Postgres is away
STOPPED = 20.0  # seconds that a replica is stopped
BETWEEN_EDITS = 0.5


def hosts(proxies: int, extra: int) -> str:
    """Those that are always there, and one more that is another at each step."""
    there = [f"10.1.0.{n}" for n in range(proxies)]
    lines = [
        f"  - {{name: host-{address}, address: {address}, service: web.shop, port: 80,"
        " identity: web.shop}\n"
        for address in (*there, f"10.2.{extra >> 8}.{extra & 255}")
    ]
    return "services: {web.shop: {ports: {http: 80}}}\nhosts:\n" + "".join(lines)


@dataclass
class Replicas:
    """The replicas, the list of hosts that they share, and the proxies that listen to them."""

    folder: Path
    url: str
    size: int
    members: list[Mesh] = field(default_factory=list)
    proxies: list[Proxy] = field(default_factory=list)
    steps: Iterator[int] = field(default_factory=count)
    wanted: frozenset[str] = frozenset()

    def edit(self) -> float:
        """One host leaves the list and another comes; when."""
        step = next(self.steps)
        text = hosts(self.size, step)
        self.wanted = frozenset(entry["address"] for entry in yaml.safe_load(text)["hosts"])
        return replace(self.folder / "hosts.yaml", text)

    def made(self, name: str) -> Mesh:
        own = self.folder / name
        own.mkdir()
        mesh = Mesh(own, "hosts: []", {})
        mesh.written |= {
            "mesh": {"trust_domain": "live.example", "permissive": True},
            "catalog": self.url,
            "providers": [
                {"name": "rack", "type": "hosts", "path": str(self.folder / "hosts.yaml")}
            ],
            "certificates": {"key_file": str(self.folder / "meshfed.key")},
        }
        replace(mesh.config, yaml.safe_dump(mesh.written))
        self.members.append(mesh)
        return mesh

    async def leader(self) -> Mesh:
        """Who says so of itself."""
        found: list[Mesh] = []

        async def leads() -> bool:
            for mesh in self.members:
                _, text = await mesh.control.get("/readyz")
                said = json.loads(text) if text else {}
                if said and said["replica"] == said["leader"]:
                    found.append(mesh)
            return bool(found)

        await until("a leader", leads)
        return found[0]

    async def told(self, seconds: float, *, but: Mesh | None = None) -> None:
        """Every proxy, but for those of one replica, has exactly what is in the list."""
        async with asyncio.timeout(seconds):
            for proxy in [proxy for proxy in self.proxies if but is None or proxy.at is not but]:
                while proxy.at is None or proxy.addresses() != self.wanted:
                    proxy.moved.clear()
                    await proxy.moved.wait()

    async def serve(self, mesh: Mesh, build: Path | None = None) -> None:
        """Started again, maybe of another build."""
        mesh.process = Process(
            ("env", f"PYTHONPATH={build or ''}", *command(Folder(mesh.folder, "", ""))),
            mesh.folder / "serve.log",
        )
        await until("the replica's start", mesh.serving)

    @asynccontextmanager
    async def churn(self) -> AsyncIterator[None]:
        """The list is edited all the time."""

        async def editing() -> None:
            while True:
                self.edit()
                await asyncio.sleep(BETWEEN_EDITS)

        running = asyncio.create_task(editing())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            self.edit()

    @asynccontextmanager
    async def listening(self, *to: Mesh) -> AsyncIterator[None]:
        authority = await Authority.of(self.members[0])
        always = frozenset(f"10.1.0.{n}" for n in range(self.size))
        for n in range(self.size):
            name = f"host-10.1.0.{n}"
            proxy = Proxy(name, authority.papers(name), to or self.members, always=always)
            self.proxies.append(proxy)
        running = [asyncio.create_task(proxy.run()) for proxy in self.proxies]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def events(mesh: Mesh, event: str) -> list[dict[str, object]]:
    """What it has said of that kind."""
    lines = map(json.loads, mesh.process.log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def several(folder: Path, url: str, replicas: int, proxies: int) -> AsyncIterator[Replicas]:
    """All started at the same moment, on a catalog in which there is nothing."""
    made = Replicas(folder, url, proxies)
    made.edit()
    for n in range(replicas):
        made.made(f"replica-{n}")
    try:
        await asyncio.gather(*(mesh.serve() for mesh in made.members))
        yield made
    finally:
        for mesh in made.members:
            if mesh.process.popen.poll() is None:
                mesh.process.popen.send_signal(signal.SIGCONT)
                mesh.process.end()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with started() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """An empty database."""
    name = f"of_{abs(hash(request.node.name))}"
    execute(postgres.url, f"create database {name}")
    return make_url(postgres.url).set(database=name).render_as_string(hide_password=False)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        answer = connection.execute(statement.encode())
        return answer.fetchall() if answer.description else []


@asynccontextmanager
async def taken_over(url: str) -> AsyncIterator[None]:
    """A writer that has its turn, in which it takes the lead and lets go of it at once."""
    database = Database(url)
    with database._writing.connect() as turn, turn.begin():
        yield
        take(turn, "another", at_once=True)
        turn.execute(text("update leadership set until = 0"))
    database.close()


async def until_waiting(url: str) -> None:
    """Somebody waits for its turn to write."""
    waiting = f"select 1 from pg_locks where objid = {LOCK} and not granted"

    async def waits() -> bool:
        return bool(await asyncio.to_thread(execute, url, waiting))

    await until("a writer's turn", waits)


async def trusted(mesh: Mesh, authority: Authority) -> None:
    """It shows a certificate of this root, and takes one."""
    tls = context(authority.papers("host-10.1.0.0"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=pem((authority.certificate,)))
    async with dialled(mesh, tls) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert await reader.read(1)


async def test_the_lead_passes_on_and_what_is_late_is_refused(url: str, tmp_path: Path) -> None:
    async with several(tmp_path, url, replicas=2, proxies=2) as made:
        first = await made.leader()
        root = await Authority.of(first)
        await asyncio.gather(*(trusted(mesh, root) for mesh in made.members))
        async with made.listening():
            await made.told(WITHIN)

            async with taken_over(url):
                made.edit()
                await until_waiting(url)
            await made.told(WITHIN)
            assert [each["epoch"] for each in events(first, "deposed")] == [1]

            killed, began = await made.leader(), time.monotonic()
            killed.process.kill()
            made.edit()
            await made.told(WITHIN)
            took = time.monotonic() - began
            (left,) = set(made.members) - {killed}
            assert [each["epoch"] for each in events(left, "leading")][-1] == 4
            assert took < WITHIN


async def test_a_pooler_that_breaks_listen_is_named_in_one_line(url: str, tmp_path: Path) -> None:
    async with pooled(url) as through:
        assert await asyncio.to_thread(execute, through, "select 1")  # all else works
        made = Replicas(tmp_path, through, 1)
        made.edit()
        mesh = made.made("replica")
        process = Process(command(Folder(mesh.folder, "", "")), mesh.folder / "serve.log")
        assert await asyncio.to_thread(process.popen.wait, 30) == 1
    (line,) = [line for line in process.log.read_text().splitlines() if "starting" not in line]
    assert "a pooler stands before Postgres" in line
    assert "pool_mode=session" in line


# Everything that may happen


def later(folder: Path) -> Path:
    """A build with one migration more."""
    build = folder / "later"
    package = build / "meshfed"
    shutil.copytree(
        Path(meshfed.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    newest = max(meanings())
    name = f"{number(newest) + 1:04}"
    (package / f"migrations/versions/{name}_later.py").write_text(
        '"""What the next release adds."""\n\n'
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f'revision = "{name}"\ndown_revision = "{newest}"\n\n\n'
        "def upgrade() -> None:\n"
        '    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))\n'
        '    column = sa.Column("later", sa.Text(), nullable=False, server_default="")\n'
        '    op.add_column("endpoints", column)\n\n\n'
        "def downgrade() -> None:\n"
        '    op.drop_column("endpoints", "later")\n    op.drop_table("later")\n'
    )
    return build


@dataclass
class Trial:
    """Three replicas, fifty proxies, and how long each fault was felt."""

    made: Replicas
    postgres: Postgres
    felt: dict[str, float] = field(default_factory=dict)

    async def recovered(
        self, what: str, within: float = WITHIN, *, but: Mesh | None = None
    ) -> None:
        began = time.monotonic()
        await self.made.told(within, but=but)
        self.felt[what] = round(time.monotonic() - began, 2)
        assert not [proxy.lost for proxy in self.made.proxies if proxy.lost], what

    async def follower(self) -> Mesh:
        leader = await self.made.leader()
        return next(mesh for mesh in self.made.members if mesh is not leader)

    async def killed(self, mesh: Mesh, what: str, within: float) -> None:
        mesh.process.kill()
        self.made.edit()
        await self.recovered(what, within)
        await self.made.serve(mesh)

    async def stopped(self, mesh: Mesh, what: str) -> None:
        mesh.process.popen.send_signal(signal.SIGSTOP)
        self.made.edit()
        await self.recovered(f"{what}: the others' proxies", but=mesh)
        async with self.made.churn():
            await asyncio.sleep(STOPPED)
            mesh.process.popen.send_signal(signal.SIGCONT)
        await self.recovered(what)

    async def away(self) -> None:
        async with self.made.churn():
            await asyncio.to_thread(self.postgres.stop)
            await asyncio.sleep(AWAY)
            await asyncio.to_thread(self.postgres.start)
        await self.recovered("Postgres away for 30 s")

    async def unheard(self) -> None:
        listens = f"application_name = 'meshfed' and query = '{REVISION}'"
        ended = f"select pg_terminate_backend(pid) from pg_stat_activity where {listens}"
        assert len(await asyncio.to_thread(execute, self.made.url, ended)) >= 3
        self.made.edit()
        await self.recovered("LISTEN connections dropped")

    async def rolled(self, what: str, build: Path | None) -> None:
        async with self.made.churn():
            for mesh in self.made.members:
                await asyncio.to_thread(mesh.process.end)
                await self.made.serve(mesh, build)
        await self.recovered(what)

    async def compared(self) -> None:
        """What the catalog says of the proxies is what they say of themselves."""
        there = frozenset(
            str(row[0])
            for row in execute(self.made.url, "select address from mesh_endpoints where not stale")
        )
        assert there == self.made.wanted
        assert all(proxy.addresses() == there for proxy in self.made.proxies)
        with closing(Catalog(self.made.url)) as catalog:
            names = {w.id: w.name for w in (await catalog.read()).workloads.values()}
            found = await asyncio.to_thread(waited, self.made.url, None, WITHIN)
            assert found.there, found
            assert found.proxies == len(self.made.proxies)
            assert len(await catalog.signs()) == len(self.made.members)
        rows = execute(self.made.url, "select proxy, cluster, version from mesh_clusters")
        said = {(names[str(proxy)], cluster, version) for proxy, cluster, version in rows}
        assert said == {
            (proxy.name, cluster, version)
            for proxy in self.made.proxies
            for cluster, version in proxy.versions[Type.ENDPOINTS].items()
        }


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_whatever_happens_to_three_replicas_fifty_proxies_have_what_they_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started() as postgres:
        async with several(tmp_path, postgres.url, replicas=3, proxies=50) as made:
            trial = Trial(made, postgres)
            async with made.listening():
                await trial.recovered("connected", 60)
                await trial.killed(await made.leader(), "the leader killed", 2 * WITHIN)
                await trial.killed(await trial.follower(), "a follower killed", WITHIN)
                await trial.away()
                await trial.unheard()
                await trial.stopped(await trial.follower(), "a follower stopped for 20 s")
                leader = await made.leader()
                before = len(events(leader, "deposed"))
                await trial.stopped(leader, "the leader stopped for 20 s")
                assert len(events(leader, "deposed")) == before + 1
                await trial.rolled("rolled to the next schema", later(tmp_path))
                await trial.rolled("rolled back", None)
                await trial.compared()
            revisions = execute(postgres.url, "select revision from changes order by id")
            assert revisions == sorted(revisions)
    with capsys.disabled():
        print("\n" + json.dumps(trial.felt, indent=2))
