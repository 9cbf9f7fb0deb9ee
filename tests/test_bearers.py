"""Pods come with the tokens of their service accounts, and whoever shows anything else is told why.

The cluster signs and reviews tokens, gRPC is real, and the catalog's rows are the provider's.
"""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from bearing import WEB, Mesh, answered, bearer, started, with_metadata
from clusters import namespace, pod
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from prometheus_client import CollectorRegistry
from streaming import ending

from meshfed.catalog.store import Catalog
from meshfed.federation.admin.metrics import Metrics
from meshfed.federation.bearers import FRESH
from meshfed.federation.certificates.keypair import Keypair
from meshfed.federation.presence import Presence
from meshfed.federation.settings import Refused, Settings
from meshfed.federation.sources import Sources
from meshfed.xds.door import LONGEST
from meshfed.xds.reporting import SERVICE as LRS

DENIED, STRANGER = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
AWAY = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with started(tmp_path) as made:
        yield made


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
