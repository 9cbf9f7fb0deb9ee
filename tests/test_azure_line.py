"""How Azure is asked, on the wire: by whom, where, and what is left of it when it is over."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from azure.core import AzureClouds
from azure.identity import AzureAuthorityHosts
from azure.identity.aio import ManagedIdentityCredential, WorkloadIdentityCredential
from azure.mgmt.core.policies import AsyncARMAutoResourceProviderRegistrationPolicy
from azure.mgmt.core.tools import get_arm_endpoints

from meshfed.demo.arm.resources import SUBSCRIPTION
from meshfed.demo.arm.server import CLIENT, ENVIRONMENT, Server
from meshfed.demo.arm.world import Fault
from meshfed.providers.azure import access, lists
from meshfed.providers.azure.access import Line, credential
from meshfed.providers.azure.lists import Answer, Unreachable, retry_after
from meshfed.providers.azure.options import CLOUDS, cloud

MACHINES = lists.MACHINES.below(f"/subscriptions/{SUBSCRIPTION}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("arm"))
    one.begin()
    yield one
    one.end()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server.fresh()


def line(server: Server, **differently: str) -> Line:
    return Line(cloud(server.cloud | differently, Path()), "client_secret")


async def asked(one: Line, path: str = MACHINES) -> Answer:
    """And then closed."""
    try:
        return await one.get(f"{one.url}{path}")
    finally:
        await one.close()


# Closing


class Mute:
    """Whoever connects hears nothing."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.left = asyncio.Event()  # whoever was connected
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        self.left.set()
        writer.transport.abort()


@asynccontextmanager
async def mute() -> AsyncIterator[Mute]:
    made = Mute()
    listening = await asyncio.start_server(made.hear, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()
    await listening.wait_closed()


@pytest.mark.parametrize("whose", ["endpoint", "authority"])
@pytest.mark.parametrize("how", ["closed", "given up"])
async def test_a_connection_that_is_being_made_when_it_is_closed_ends(
    server: Server, whose: str, how: str
) -> None:
    async with mute() as there:
        one = line(server, audience=server.url, **{whose: there.url})
        asking = asyncio.create_task(one.get(f"{one.url}{MACHINES}"))
        async with asyncio.timeout(5):
            await there.connected.wait()
            if how == "given up":
                asking.cancel()
            await one.close()
            await there.left.wait()
            (why,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(why, asyncio.CancelledError if how == "given up" else Unreachable)


def test_whenever_calls_are_given_up_no_connection_is_left(server: Server) -> None:
    """Between TCP and TLS, asyncio forgets the one whose maker is cancelled."""

    async def given_up(turns: int) -> None:
        one = line(server)
        await one.get(f"{one.url}{MACHINES}")
        asking = [asyncio.create_task(one.get(f"{one.url}{MACHINES}")) for _ in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in asking:
            each.cancel()
        await asyncio.wait(asking)
        await one.close()

    for turns in range(4, 14):
        asyncio.run(given_up(turns))
        gc.collect()  # what was left would say so


async def test_nothing_is_asked_after_it_was_closed(server: Server) -> None:
    one = line(server)
    await one.close()
    with pytest.raises(Unreachable, match="closed"):
        await asked(one)


# Where


@pytest.mark.parametrize(
    ("name", "sdk", "authority"),
    [
        ("public", AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
        ("usgov", AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
        ("china", AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
    ],
)
def test_clouds_are_where_azures_sdk_has_them(name: str, sdk: AzureClouds, authority: str) -> None:
    known = get_arm_endpoints(sdk)
    assert CLOUDS[name].endpoint == known["resource_manager"].rstrip("/")
    assert [CLOUDS[name].scope] == known["credential_scopes"]
    assert CLOUDS[name].authority == f"https://{authority}"


async def test_a_resource_manager_that_nobody_vouches_for_is_not_talked_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "RETRIES", 0)
    other = Server(tmp_path)  # whose authority is another
    other.begin()
    try:
        with pytest.raises(Unreachable, match=r"(?i)certificate.verify.failed"):
            await asked(line(server, endpoint=other.url, audience=server.url))
        assert other.world.total == 0
    finally:
        other.end()


async def test_who_is_sent_elsewhere_does_not_go_there(server: Server) -> None:
    there = {"Location": "https://localhost:1/"}
    server.world.faults = [Fault(302, headers=there)]
    assert (await asked(line(server))).status == 302
    assert server.world.total == 1


async def test_who_does_not_answer_is_not_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "CONNECTING", 0.2)
    monkeypatch.setattr(access, "RETRIES", 0)
    async with mute() as there:
        with pytest.raises(Unreachable):
            await asked(line(server, endpoint=there.url, audience=server.url))


async def test_nothing_is_registered_in_a_subscription_where_something_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's clients would do so by themselves, with a POST that the role does not have."""

    async def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(AsyncARMAutoResourceProviderRegistrationPolicy, "send", never)
    why = "The subscription is not registered to use namespace 'Microsoft.Compute'"
    server.world.faults = [Fault(409, "MissingSubscriptionRegistration", message=why)]
    assert (await asked(line(server))).status == 409


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "Tue, 24 Nov 2026 08:20:00 GMT",
          "Date": "Tue, 24 Nov 2026 08:00:00 GMT"}, 1200.0),
        ({"Retry-After": "soon"}, 0.0),
        ({}, 0.0),
    ],
    ids=str,
)  # fmt: skip
def test_azure_says_in_several_ways_how_long_to_wait(
    headers: dict[str, str], seconds: float
) -> None:
    assert retry_after(headers) == seconds


# As whom


async def test_without_a_word_it_is_the_pods_identity_or_the_machines_and_nobody_elses(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AZURE_FEDERATED_TOKEN_FILE", raising=False)
    async with credential(CLOUDS["public"], "") as found:
        assert type(found) is ManagedIdentityCredential
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    async with credential(CLOUDS["public"], "") as found:
        assert type(found) is WorkloadIdentityCredential


async def test_a_pod_that_aks_did_not_prepare_is_told_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_CLIENT_ID")
    one = Line(cloud(server.cloud, Path()), "workload_identity")
    with pytest.raises(Unreachable, match="client_id"):
        await asked(one)


async def test_a_machine_of_azure_is_the_identity_that_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its own metadata service gives a token for."""
    tokens: list[dict[str, str]] = []

    async def token(request: web.Request) -> web.Response:
        tokens.append({**request.query, "metadata": request.headers["Metadata"]})
        said = {"access_token": server.give(), "expires_in": "3600",
                "expires_on": "4102444800", "resource": "any", "token_type": "Bearer"}  # fmt: skip
        return web.json_response(said)

    app = web.Application()
    app.router.add_get("/metadata/identity/oauth2/token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    metadata = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata)
    try:
        answer = await asked(Line(cloud(server.cloud, Path()), "managed_identity"))
    finally:
        await runner.cleanup()
    assert answer.status == 200
    (said,) = (each for each in tokens if "resource" in each)
    assert (said["resource"], said["client_id"]) == (server.url, CLIENT)
    assert said["metadata"] == "true"
