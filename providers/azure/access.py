"""Asks Azure through the pipeline of its own SDK: tokens, TLS, proxies, and a few retries.

The clients of azure-mgmt-compute and -network are this pipeline with models around it, which cost
10 s on the event loop for 20,000 machines, 50 MB, and a policy that registers resource providers.
"""

import asyncio
import logging
import os
import ssl
from importlib.metadata import version

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
from azure.mgmt.core import AsyncARMPipelineClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from meshfed.providers.azure.lists import Answer, Unreachable
from meshfed.providers.azure.options import Cloud

PATIENCE = 5.0  # seconds that one call may be told to wait; with more, the subscription rests
RETRIES = 2
CONNECTING = 10.0  # seconds
READING = 60.0  # seconds
FEDERATED = "AZURE_FEDERATED_TOKEN_FILE"  # what AKS's webhook sets

Client = AsyncARMPipelineClient[HttpRequest, AsyncHttpResponse]


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


class Line:
    """The resource manager of a cloud, asked as one identity."""

    def __init__(self, cloud: Cloud, auth: str) -> None:
        self._cloud = cloud
        self._auth = auth
        # What fails is told by whoever asked, once; not at every try, in two lines.
        logging.getLogger("azure").setLevel(logging.CRITICAL)
        self._tls = ssl.create_default_context(cafile=cloud.ca)
        self._opened: tuple[Client, AsyncTokenCredential] | None = None
        self._connector: aiohttp.TCPConnector | None = None
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        return self._cloud.endpoint

    async def get(self, url: str) -> Answer:
        try:
            client = await self._client()
            # Else answers and their bodies would refer to each other until garbage is looked for.
            answer = await client.send_request(HttpRequest("GET", url), stream=True)
            async with answer:
                body = b"".join([some async for some in answer.iter_bytes()])
        except (AzureError, ValueError, OSError) as error:
            raise Unreachable(brief(error)) from error
        return Answer(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        if self._opened:
            client, token = self._opened
            self._opened = None
            if self._connector:  # whose other ends would be waited for
                await self._connector.close(abort_ssl=True)
            await client.close()
            await token.close()

    async def _client(self) -> Client:
        async with self._turn:
            if self._opened is None:
                token = credential(self._cloud, self._auth)
                self._opened = (self._made(token), token)
            return self._opened[0]

    def _made(self, token: AsyncTokenCredential) -> Client:
        # Told a file to verify by, the SDK makes a context for each call: none finds a connection
        # to use again, and 382 of those that end slowly hold 100 MB.
        self._connector = aiohttp.TCPConnector(ssl=self._tls)
        session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # as the transport expects
            trust_env=True,
        )
        return AsyncARMPipelineClient(
            self._cloud.endpoint,
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


def brief(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__
