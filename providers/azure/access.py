"""Asks Azure through the pipeline of its own SDK's client: tokens, TLS, proxies, and a few retries.

Its models are left alone, which take 10 s of the event loop for 20,000 machines. The client for
compute asks for networks too: that for networks is the same pipeline, another 40 MB and a token.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from weakref import WeakSet

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineResponse
from azure.core.pipeline.policies import (
    AsyncRetryPolicy,
    RequestIdPolicy,
    SensitiveHeaderCleanupPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.identity.aio import (
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from meshfed.providers.azure.lists import Answer, Unreachable
from meshfed.providers.azure.options import Cloud

PATIENCE = 5.0  # seconds that one call may be told to wait; with more, the subscription rests
RETRIES = 2
CONNECTING = 10.0  # seconds
READING = 60.0  # seconds
TURNS = 100  # of the loop
FEDERATED = "AZURE_FEDERATED_TOKEN_FILE"  # what AKS's webhook sets

NONE = "00000000-0000-0000-0000-000000000000"  # a client wants a subscription; calls name theirs


class Capped(AsyncRetryPolicy[HttpRequest, AsyncHttpResponse]):
    """The SDK sleeps for as long as Azure says, silently: 20 minutes have been seen."""

    def is_retry(  # type: ignore[override]  # the SDK's is for any response; ours are all of one
        self,
        settings: dict[str, object],
        response: PipelineResponse[HttpRequest, AsyncHttpResponse],
    ) -> bool:
        after = self.get_retry_after(response)
        throttled = response.http_response.status_code == 429
        if (after or 0) > PATIENCE or (throttled and not after):
            return False
        return bool(super().is_retry(settings, response))


def credential(cloud: Cloud, auth: str) -> AsyncTokenCredential:
    """Who asks. Raises ValueError."""
    if not auth:
        # Never the whole chain by itself: a pod that is set up wrong would be its node.
        auth = "workload_identity" if os.environ.get(FEDERATED) else "managed_identity"
    verify = str(cloud.ca) if cloud.ca else True
    match auth:
        case "workload_identity":
            return WorkloadIdentityCredential(
                authority=cloud.authority,
                connection_verify=verify,
                # Microsoft's own list does not know other authorities.
                disable_instance_discovery=cloud.custom,
            )
        case "managed_identity":
            return ManagedIdentityCredential(client_id=os.environ.get("AZURE_CLIENT_ID"))
        case "client_secret":
            return ClientSecretCredential(
                environment("AZURE_TENANT_ID"),
                environment("AZURE_CLIENT_ID"),
                environment("AZURE_CLIENT_SECRET"),
                authority=cloud.authority,
                connection_verify=verify,
                disable_instance_discovery=cloud.custom,
            )
        case _:
            return DefaultAzureCredential(authority=cloud.authority)


def environment(name: str) -> str:
    found = os.environ.get(name)
    if not found:
        raise ValueError(f"{name} is not set")
    return found


@dataclass(frozen=True, slots=True)
class Opened:
    """What is held while Azure is asked."""

    token: AsyncTokenCredential
    connector: aiohttp.TCPConnector
    client: ComputeManagementClient

    async def close(self) -> None:
        await self.connector.close(abort_ssl=True)  # whose other ends would be waited for
        await self.client.close()
        await self.token.close()


class Line:
    """The resource manager of a cloud, asked as one identity."""

    def __init__(self, cloud: Cloud, auth: str) -> None:
        self._cloud = cloud
        self._auth = auth
        # What fails is told by whoever asked, once; not at every try, in two lines.
        logging.getLogger("azure").setLevel(logging.CRITICAL)
        self._tls = ssl.create_default_context(cafile=cloud.ca)
        self._opened: Opened | None = None
        self._left: list[Opened] = []  # with tokens that were refused, and calls under way
        self._closed = False
        self._calls: set[asyncio.Timeout] = set()
        self._sockets: WeakSet[socket.socket] = WeakSet()

    @property
    def url(self) -> str:
        return self._cloud.endpoint

    async def get(self, url: str) -> Answer:
        call = asyncio.timeout(None)
        self._calls.add(call)
        try:
            async with call:
                return await self._asked(HttpRequest("GET", url))
        except (AzureError, ValueError, OSError) as error:
            raise Unreachable(brief(error)) from error
        finally:
            self._calls.remove(call)
            while self._left and not self._calls:
                await self._left.pop().close()

    async def _asked(self, request: HttpRequest) -> Answer:
        if self._closed:
            raise OSError("closed")
        opened = self._opened = self._opened or self._open()
        # Else answers and their bodies would refer to each other until garbage is looked for.
        answer = await opened.client.send_request(request, stream=True)
        async with answer:
            body = b"".join([some async for some in answer.iter_bytes()])
        if answer.status_code == 401 and self._opened is opened:
            # The SDK keeps a token until it ends, an hour or a day, though Azure refuses it.
            self._left.append(opened)
            self._opened = None
        return Answer(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        """And calls that are under way fail."""
        self._closed = True
        for call in self._calls:
            call.reschedule(0.0)
        await turns(lambda: not self._calls)
        for opened in (*self._left, *filter(None, (self._opened,))):
            await opened.close()
        # Whoever is cancelled between TCP and TLS leaves a transport behind that is nobody's.
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        await turns(lambda: all(each.fileno() < 0 for each in self._sockets))

    def _socket(self, where: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(*where[:3])
        self._sockets.add(made)
        return made

    def _open(self) -> Opened:
        """Raises ValueError."""
        token = credential(self._cloud, self._auth)
        # Told a file to verify by, the SDK makes a context for each call: none finds a connection
        # to use again, and 382 of those that end slowly hold 100 MB.
        connector = aiohttp.TCPConnector(ssl=self._tls, socket_factory=self._socket)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # as the transport expects
            trust_env=True,
        )
        client = ComputeManagementClient(
            token,
            NONE,
            self.url,
            # Its own, without those that log, and the one that registers resource providers.
            policies=[
                RequestIdPolicy(),
                UserAgentPolicy(f"meshfed/{version('meshfed')}"),
                Capped(retry_total=RETRIES, retry_backoff_factor=0.5, retry_backoff_max=PATIENCE),
                AsyncARMChallengeAuthenticationPolicy(token, self._cloud.scope),
                SensitiveHeaderCleanupPolicy(),
            ],
            transport=AioHttpTransport(
                session=session, connection_timeout=CONNECTING, read_timeout=READING
            ),
        )
        return Opened(token, connector, client)


async def turns(over: Callable[[], bool]) -> None:
    """Of the loop, until that is so; it takes a few."""
    for _ in range(TURNS):
        if over():
            return
        await asyncio.sleep(0)


def brief(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__
