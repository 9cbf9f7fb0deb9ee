"""Pods come with the tokens of their service accounts, and whoever shows anything else is told why.

The cluster signs and reviews tokens, gRPC is real, and the catalog's rows are the provider's.
"""

import asyncio
import base64
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from clusters import namespace, pod, provider
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from kube.cluster import Cluster, running
from kube.given import thing
from prometheus_client import CollectorRegistry
from publishing import DOMAIN
from streaming import clusters, ending, opened

from meshfed.catalog.model import Known
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.account import Account
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.bearers import FRESH, Bearers
from meshfed.federation.certificates.authority import LocalAuthority
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.keypair import Keypair
from meshfed.federation.certificates.keys import Seal
from meshfed.federation.presence import Presence
from meshfed.federation.publish import Publisher
from meshfed.federation.settings import Refused, Settings
from meshfed.federation.sources import Sources
from meshfed.federation.traffic import Traffic
from meshfed.federation.wanted import identities
from meshfed.xds.door import LONGEST
from meshfed.xds.listening import Tls
from meshfed.xds.reporting import SERVICE as LRS
from meshfed.xds.reporting import LoadReporting
from meshfed.xds.server import Server

HOUR = timedelta(hours=1)
WEB = pod("web-1", "10.0.0.1")
WEB["metadata"]["annotations"] = {"meshfed.io/interception": "transparent"}
DENIED, STRANGER = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
AWAY = grpc.StatusCode.UNAVAILABLE
TRIES = 5


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Mesh:
    """A control plane with a door for pods, beside a cluster."""

    cluster: Cluster
    catalog: Catalog
    server: Server
    registry: CollectorRegistry
    clock: Clock
    control: ControlPlane
    asked: int = 0  # how often somebody came with a token

    @property
    def roots(self) -> bytes:
        return self.control.roots_pem.encode()

    def account(self, name: str, home: str = "shop") -> None:
        self.cluster.put(thing("v1", "ServiceAccount", name, home))

    def token(self, of: dict | None = WEB, account: str = "web", **spec: object) -> str:
        """What kubelet mounts into a pod."""
        home = of["metadata"]["namespace"] if of else "shop"
        if of:
            uid = self.cluster.get(of)["metadata"]["uid"]
            name = of["metadata"]["name"]
            bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
            spec = {"boundObjectRef": bound, **spec}
        path = f"/api/v1/namespaces/{home}/serviceaccounts/{account}/token"
        body = {"spec": {"audiences": ["meshfed"], **spec}}
        return self.cluster.request("POST", path, body)["status"]["token"]

    async def observe(self) -> None:
        """What the provider sees now, into the catalog."""
        seen: dict[str, object] = {}
        async with aclosing(provider(self.cluster).observe()) as news, asyncio.timeout(10):
            async for each in news:
                seen[each.scope] = each
                if each.scope in ("aks/shop", "aks/*"):
                    break
        for scope in ("aks/shop",):
            each = seen.get(scope)
            workloads = each.workloads if each else frozenset()
            await self.catalog.believe(
                Known("aks", scope, workloads=workloads), kind="test", cause=""
            )

    @asynccontextmanager
    async def calling(self, *metadata: tuple[str, str]) -> AsyncIterator[grpc.aio.Channel]:
        """A connection, and a stream of it with this metadata."""
        async with self.channel() as channel:
            yield with_metadata(channel, *metadata)

    @asynccontextmanager
    async def channel(self, port: int = 0) -> AsyncIterator[grpc.aio.Channel]:
        shown = grpc.ssl_channel_credentials(self.roots)
        address = f"localhost:{port or self.server.port_of_tokens}"
        options = [("grpc.max_metadata_size", 1 << 20)]
        async with grpc.aio.secure_channel(address, shown, options) as channel:
            yield channel

    async def told(self, token: str) -> tuple[grpc.StatusCode, str] | None:
        """How a pod's stream ends at once; None when it is let in."""
        return await self.answer(bearer(token))

    async def answer(self, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str] | None:
        """The same, of who comes with that.

        Where the end comes while it writes, grpc's client calls it INTERNAL, whatever was said.
        """
        for _ in range(TRIES):
            self.asked += 1
            async with self.calling(*metadata) as call:
                said = await answered(call)
            if said is None or said[0] != grpc.StatusCode.INTERNAL:
                break
        return said

    def refused(self, reason: str) -> float:
        name = "meshfed_streams_refused_total"
        return self.registry.get_sample_value(name, {"reason": reason}) or 0.0

    def reviews(self) -> int:
        return self.cluster.server.counted()["create", "tokenreviews"]


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


def with_metadata(channel: grpc.aio.Channel, *metadata: tuple[str, str]):
    class Channel:
        def stream_stream(self, method, **kwargs):
            made = channel.stream_stream(method, **kwargs)
            return lambda: made(metadata=metadata)

    return opened(Channel())


async def answered(call) -> tuple[grpc.StatusCode, str] | None:
    try:
        await call.write(clusters("web-1.shop"))
        if await call.read() is not grpc.aio.EOF:
            return None
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    return await ending(call)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    with running(tmp_path / "cluster") as cluster:
        cluster.put(namespace())
        url = f"sqlite:///{tmp_path / 'catalog.db'}"
        migrate(url)
        catalog, registry, clock = Catalog(url), CollectorRegistry(), Clock()
        metrics = Metrics(registry)
        await catalog.configure(DOMAIN, permissive=True)
        issuer = await LocalAuthority.open(
            trust_domain=DOMAIN, safe=catalog, seal=Seal(tmp_path / "meshfed.key")
        )
        control = await ControlPlane.open(issuer, DOMAIN, HOUR, hosts=("localhost",))
        custody = Custody(issuer, DOMAIN, HOUR)
        read = await catalog.read()
        custody.keep(identities(read))
        account, presence = Account(read.revision, metrics), Presence(metrics)
        publisher = Publisher(read, catalog, custody, account, metrics, presence, "here")
        bearers = Bearers(
            {"aks": provider(cluster).attestor()}, publisher, "meshfed", metrics, clock
        )
        traffic = Traffic(publisher, catalog, metrics, presence, "here")

        def tls() -> Tls:
            pair = control.current
            return Tls(pair.chain_pem.encode(), pair.key_pem.encode(), control.roots_pem.encode())

        server = Server(
            publisher,
            tls,
            metrics.pushed,
            LoadReporting(traffic, bearers),
            bearers=bearers,
        )
        made = Mesh(cluster, catalog, server, registry, clock, control)
        made.account("web")
        cluster.put(WEB)
        await made.observe()
        await server.start("127.0.0.1:0", "localhost:0")
        async with aclosing(bearers), asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(each) for each in (publisher.run(), custody.run())]
            await publisher.begin()
            yield made
            await server.stop(0)
            for part in parts:
                part.cancel()
        catalog.close()


async def test_a_pod_is_let_in_by_its_token_and_told_its_mesh(mesh: Mesh) -> None:
    async with mesh.calling(bearer(mesh.token())) as call:
        assert await answered(call) is None
        assert mesh.server.streams == 1
    assert mesh.reviews() == 1


async def test_it_reports_its_calls_by_the_same_token(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        method = channel.stream_stream(
            f"/{LRS}/StreamLoadStats",
            request_serializer=LoadStatsRequest.SerializeToString,
            response_deserializer=LoadStatsResponse.FromString,
        )
        call = method(metadata=[bearer(mesh.token())])
        await call.write(LoadStatsRequest())
        assert isinstance(await call.read(), LoadStatsResponse)
        call = method(metadata=[bearer("guessed")])
        assert await ending(call) == (STRANGER, "token: not a token of a service account")


def other_pod(mesh: Mesh) -> str:
    """Of a pod that is in no meshed namespace."""
    mesh.cluster.put(namespace("elsewhere", {}))
    mesh.account("web", "elsewhere")
    return mesh.token(mesh.cluster.put(pod("web-1", namespace="elsewhere")))


def expired(mesh: Mesh) -> str:
    token = mesh.token()
    mesh.cluster.server.tokens.mint.ahead = 3601
    return token


def deleted(mesh: Mesh) -> str:
    token = mesh.token()
    mesh.cluster.delete(WEB)
    return token


def again(mesh: Mesh) -> str:
    """Of a pod that was replaced by another of its name."""
    token = deleted(mesh)
    mesh.cluster.put(WEB)
    return token


def forged(mesh: Mesh) -> str:
    """With the claims of a real one, and a signature of nobody's."""
    header, claims, _ = mesh.token().split(".")
    return f"{header}.{claims}.{'A' * 86}"


def changed(mesh: Mesh) -> str:
    """With another account in the claims that are signed."""
    header, claims, signature = mesh.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    said["kubernetes.io"]["serviceaccount"]["name"] = "admin"
    said["sub"] = "system:serviceaccount:shop:admin"
    text = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"{header}.{text}.{signature}"


@pytest.mark.parametrize(
    ("token", "code", "why", "reason"),
    [
        pytest.param(
            lambda mesh: mesh.token(audiences=["vault"]),
            STRANGER,
            'token audiences ["vault"] is invalid for the target audiences ["meshfed"]',
            "token",
            id="of another audience",
        ),
        pytest.param(
            lambda mesh: mesh.token(audiences=None),
            STRANGER,
            "is invalid for the target audiences",
            "token",
            id="for the API server itself",
        ),
        pytest.param(other_pod, DENIED, "no provider knows the pod", "workload", id="elsewhere"),
        pytest.param(expired, STRANGER, "has expired", "token", id="expired"),
        pytest.param(deleted, STRANGER, "has been invalidated", "token", id="of a deleted pod"),
        pytest.param(
            again,
            STRANGER,
            "does not match service account pod ref claim",
            "token",
            id="of a replaced pod",
        ),
        pytest.param(
            lambda mesh: mesh.token(None),
            STRANGER,
            "not bound to a pod",
            "token",
            id="of an account without a pod",
        ),
        pytest.param(forged, STRANGER, "invalid bearer token", "token", id="forged"),
        pytest.param(changed, STRANGER, "invalid bearer token", "token", id="changed"),
        pytest.param(
            lambda mesh: "guessed", STRANGER, "not a token", "token", id="garbage without dots"
        ),
        pytest.param(
            lambda mesh: "a.!!.c", STRANGER, "not a token", "token", id="garbage with dots"
        ),
        pytest.param(
            lambda mesh: f"a.{base64.urlsafe_b64encode(b'[' * 3000).decode()}.c",
            STRANGER,
            "not a token",
            "token",
            id="JSON in JSON in JSON",
        ),
        pytest.param(
            lambda mesh: "a" * (LONGEST + 1), STRANGER, f"more than {LONGEST}", "token", id="long"
        ),
    ],
)
async def test_a_token_is_refused_and_the_pod_is_told_why(
    mesh: Mesh, token: Callable[[Mesh], str], code: grpc.StatusCode, why: str, reason: str, capsys
) -> None:
    shown = token(mesh)
    said = await mesh.told(shown)
    assert said is not None
    assert said[0] == code
    assert why in said[1]
    assert mesh.refused(reason) == mesh.asked
    assert mesh.server.streams == 0
    logged = capsys.readouterr().out
    assert logged.count("proxy refused") == 1  # the same of one address, once a minute
    assert shown not in logged


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        pytest.param([], "no token", id="none"),
        pytest.param([("authorization", "Basic dTpw")], "not a bearer token", id="a password"),
        pytest.param([bearer("a"), bearer("b")], "more than one token", id="two"),
    ],
)
async def test_without_a_token_nobody_is_let_in(mesh: Mesh, metadata: list, why: str) -> None:
    said = await mesh.answer(*metadata)
    assert said is not None
    assert said[0] == STRANGER
    assert why in said[1]
    assert mesh.refused("token") == mesh.asked
    assert mesh.reviews() == 0


async def test_megabytes_of_metadata_are_not_even_read(mesh: Mesh) -> None:
    said = await mesh.told("a" * (1 << 18))
    assert said is not None
    assert said[0] in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert mesh.reviews() == 0
    assert await mesh.told(mesh.token()) is None


async def test_what_names_no_pod_of_the_mesh_is_never_sent_to_a_cluster(mesh: Mesh) -> None:
    assert await mesh.told(other_pod(mesh)) is not None
    assert mesh.reviews() == 0


async def test_a_token_opens_no_door_that_asks_for_a_certificate(mesh: Mesh) -> None:
    async with mesh.channel(mesh.server.port) as channel:
        said = await answered(with_metadata(channel, bearer(mesh.token())))
    assert said is not None
    assert said[0] == AWAY  # TLS is not even set up
    assert mesh.reviews() == 0


async def test_who_is_refused_is_told_of_by_the_name_of_the_pod_that_its_token_says(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    for token in (deleted(mesh), other_pod(mesh), "guessed"):
        assert await mesh.told(token) is not None
    logged = [each for each in capsys.readouterr().out.splitlines() if "proxy refused" in each]
    named = [re.search(r"workload=(\S*)", each)[1] for each in logged]
    assert sorted(set(named)) == ["", "web-1.elsewhere", "web-1.shop"]


async def test_a_stream_ends_when_its_pod_leaves_the_catalog(mesh: Mesh) -> None:
    async with mesh.calling(bearer(mesh.token())) as call:
        assert await answered(call) is None
        mesh.cluster.delete(WEB)
        await mesh.observe()
        async with asyncio.timeout(10):
            code, why = await ending(call)
        assert code == DENIED
        assert "no provider knows the workload" in why


async def test_a_cluster_that_is_away_keeps_new_tokens_waiting_and_nobody_else(mesh: Mesh) -> None:
    known, new = mesh.token(), mesh.token()
    async with mesh.calling(bearer(known)) as standing:
        assert await answered(standing) is None
        mesh.cluster.server.stop()
        mesh.clock.ahead += FRESH + 1
        said = await mesh.told(new)
        assert said is not None
        assert said[0] == AWAY
        assert "the token cannot be reviewed now" in said[1]
        assert mesh.refused("unreviewed") == 1
        assert await mesh.told(known) is None
        mesh.cluster.server.start()
        assert await mesh.told(new) is None
        assert not standing.done()


async def test_a_cluster_that_refuses_to_review_is_named(mesh: Mesh) -> None:
    mesh.cluster.faults.fail(1, 403, plural="tokenreviews")
    said = await mesh.told(mesh.token())
    assert said is not None
    assert said[0] == AWAY
    assert "403" in said[1]


async def test_a_renewed_certificate_is_shown_from_then_on(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.create_default_context(cadata=mesh.roots.decode())
    tls.set_alpn_protocols(["h2"])

    async def serial() -> str:
        where = ("localhost", mesh.server.port_of_tokens)
        _, writer = await asyncio.open_connection(*where, ssl=tls)
        shown = writer.get_extra_info("peercert")
        writer.transport.abort()
        return str(shown["serialNumber"]).lower()

    async with mesh.calling(bearer(mesh.token())) as standing:
        assert await answered(standing) is None
        assert await serial() == mesh.control.current.serial.rjust(40, "0").lower()
        before = mesh.control.current
        monkeypatch.setattr(Keypair, "due", lambda pair, now: pair is before)
        await mesh.control.check()
        assert mesh.control.current is not before
        assert await serial() == mesh.control.current.serial.rjust(40, "0").lower()
        assert not standing.done()


async def test_an_answer_counts_for_a_minute_and_is_asked_for_once(mesh: Mesh) -> None:
    token = mesh.token()
    async with asyncio.TaskGroup() as tasks:
        every = [tasks.create_task(mesh.told(token)) for _ in range(5)]
    assert [each.result() for each in every] == [None] * 5
    assert mesh.reviews() == 1
    mesh.clock.ahead += FRESH + 1
    assert await mesh.told(token) is None
    assert mesh.reviews() == 2


def test_a_door_for_pods_without_a_cluster_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text("mesh: {trust_domain: shop.example}\nxds: {tokens: '127.0.0.1:15130'}\n")
    metrics = Metrics(CollectorRegistry())
    with closing(Catalog(f"sqlite:///{tmp_path}/meshfed.db")) as catalog:
        sources = Sources(Settings.read(file, {}), catalog, Presence(metrics), metrics)
        with pytest.raises(Refused, match=r":2: xds\.tokens: no provider knows tokens"):
            sources.attestors()
