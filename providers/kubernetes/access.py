"""Asks a cluster's API with the official client's credentials, and renews them."""

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config,
    load_kube_config_from_dict,
)

from meshfed.providers.kubernetes.kubeconfig import files, lacking, wrong
from meshfed.providers.kubernetes.messages import Answer, Refused, Unreachable, status
from meshfed.providers.kubernetes.options import Where
from meshfed.providers.kubernetes.reflect import Pace

REREAD = 60.0  # seconds between two looks whether a kubeconfig is still what it was
UNBOUNDED = aiohttp.ClientTimeout(total=None)  # watches go on; whoever reads has limits
HEADERS = {"Accept": "application/json"}
MERGE = "application/merge-patch+json"
OPERATIONS = "application/json-patch+json"
QUERY = re.compile(r"\?[^\s'\")]*")
# A file that is not there, a name that no DNS takes, a token that is no header.
UNASKED = (ConfigException, OSError, ValueError)
# Where a kubeconfig is read, the client knows no better of a part that is not what it should be.
MALFORMED = (*UNASKED, yaml.YAMLError, LookupError, TypeError, AttributeError)


class Secret(msgspec.Struct):
    data: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None
    content: str = "application/json"


@dataclass(slots=True)
class Session:
    """A client with its connections, which are used until nobody reads from them."""

    client: ApiClient
    text: str  # what it was made of
    made: float
    users: int = 0
    over: bool = False


class Credentials(Protocol):
    """Where credentials stand."""

    async def text(self) -> str:
        """What tells them from others. Raises Unreachable."""
        ...

    async def client(self, text: str) -> ApiClient:
        """Raises Unreachable."""
        ...


def configuration() -> Configuration:
    made = Configuration()
    made.connection_pool_maxsize = 0  # a watch holds a connection, and a namespace three watches
    return made


def opened(made: Configuration) -> ApiClient:
    """Raises whatever is MALFORMED."""
    if "://" not in made.host:
        raise ConfigException(f"{made.host!r} is no URL of a server")
    for said in (made.proxy, made.tls_server_name):
        if said and not isinstance(said, str):
            raise ConfigException(f"{said!r} is no text")
    client = ApiClient(configuration=made)
    client.user_agent = "meshfed"
    return client


class InCluster:
    """The service account of the pod that this runs in; the client reads its token again."""

    async def text(self) -> str:
        return ""

    async def client(self, text: str) -> ApiClient:
        made = configuration()
        try:
            load_incluster_config(client_configuration=made)
            return opened(made)
        except MALFORMED as error:
            raise Unreachable(brief(error)) from error


class Kubeconfig:
    """A file, or those that KUBECONFIG names, by kubectl's rules."""

    def __init__(self, path: Path | None, context: str) -> None:
        self._path = path
        self._context = context or None

    @property
    def _files(self) -> str:
        return files(self._path)

    async def text(self) -> str:
        return await asyncio.to_thread(self._read)

    def _read(self) -> str:
        paths = [Path(file) for file in self._files.split(os.pathsep) if file]
        try:
            there = [path.read_text() for path in paths if len(paths) == 1 or path.exists()]
        except (OSError, ValueError) as error:
            raise Unreachable(f"{self._files}: {getattr(error, 'strerror', error)}") from error
        return "\n".join(there)

    async def client(self, text: str) -> ApiClient:
        made = configuration()
        try:
            await load_kube_config(self._files, self._context, made, persist_config=False)
            return opened(made)
        except MALFORMED as error:
            where = Where(self._context or "", self._path)
            told = await asyncio.to_thread(lacking, where)
            raise Unreachable(told or f"{self._files}: {brief(error)}") from error


class InSecret:
    """The kubeconfig in a Secret of another cluster."""

    def __init__(self, there: "Line", namespace: str, name: str) -> None:
        self._there = there
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        self._name = f"{namespace}/{name}"

    async def text(self) -> str:
        async with self._there.get(self._path, {}) as answer:
            body = await answer.read()
        if answer.status != 200:
            why = Refused(answer.status, status(body).message)
            raise Unreachable(f"Secret {self._name}: {why}")
        try:
            data = msgspec.json.decode(body, type=Secret).data or {}
            return base64.b64decode(data["kubeconfig"]).decode()
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            raise Unreachable(f"Secret {self._name}: no kubeconfig in it") from error

    async def client(self, text: str) -> ApiClient:
        made = configuration()
        try:
            await load_kube_config_from_dict(yaml.safe_load(text), client_configuration=made)
            return opened(made)
        except MALFORMED as error:
            secret = f"Secret {self._name}"
            told = wrong([(secret, text)], "") or f"{secret}: {brief(error)}"
            raise Unreachable(told) from error


class Line:
    """One cluster's API."""

    def __init__(self, credentials: Credentials, pace: Pace, below: "Line | None" = None) -> None:
        self._credentials = credentials
        self._pace = pace
        self._below = below  # through which the credentials come
        self._session: Session | None = None
        self._turn = asyncio.Lock()

    def get(self, path: str, query: Mapping[str, str]) -> AbstractAsyncContextManager[Answer]:
        return self._asked(Request("GET", path, query))

    def patch(self, path: str, change: Mapping[str, object]) -> AbstractAsyncContextManager[Answer]:
        """What is null in the change is taken away (RFC 7386)."""
        return self._asked(Request("PATCH", path, body=change, content=MERGE))

    def operate(
        self, path: str, changes: Sequence[Mapping[str, object]]
    ) -> AbstractAsyncContextManager[Answer]:
        """One after the other, or none of them (RFC 6902)."""
        return self._asked(Request("PATCH", path, body=changes, content=OPERATIONS))

    def post(
        self, path: str, thing: Mapping[str, object], query: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        return self._asked(Request("POST", path, query or {}, body=thing))

    def delete(self, path: str) -> AbstractAsyncContextManager[Answer]:
        return self._asked(Request("DELETE", path))

    @asynccontextmanager
    async def _asked(self, request: Request) -> AsyncIterator[Answer]:
        session = await self._current()
        session.users += 1
        try:
            answer = await self._ask(session.client, request)
            try:
                if answer.status == 401 and self._session is session:
                    await self._retire()  # a token that is over: they are read again
                yield answer
            except aiohttp.ClientError as error:
                raise Unreachable(brief(error)) from error
            finally:
                _drop(answer)
        finally:
            session.users -= 1
            await self._end(session)

    async def close(self) -> None:
        if self._session:
            self._session.users = 0
            await self._retire()
        if self._below:
            await self._below.close()

    async def _ask(self, client: ApiClient, request: Request) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(self._pace.headers):
                serialized = await client.param_serialize(
                    request.method,
                    request.path,
                    query_params=list(request.query.items()),
                    header_params=HEADERS | {"Content-Type": request.content},
                    body=request.body,
                    auth_settings=["BearerToken"],
                )
                asked = await client.call_api(*serialized, _request_timeout=UNBOUNDED)
        except TimeoutError as error:
            raise Unreachable(f"no answer in {self._pace.headers:g} s") from error
        except (aiohttp.ClientError, *UNASKED) as error:
            raise Unreachable(brief(error)) from error
        answer: aiohttp.ClientResponse = asked.response
        return answer

    async def _current(self) -> Session:
        """The client in use, made anew when its credentials have become others."""
        async with self._turn:
            now = self._pace.clock()
            if self._session and now - self._session.made < REREAD:
                return self._session
            text = await self._credentials.text()
            if self._session and text == self._session.text:
                self._session.made = now
                return self._session
            await self._retire()
            client = await self._credentials.client(text)
            self._session = Session(client, text, now)
            return self._session

    async def _retire(self) -> None:
        session, self._session = self._session, None
        if session:
            session.over = True
            await self._end(session)

    async def _end(self, session: Session) -> None:
        if session.over and not session.users:
            await session.client.close()


def _drop(answer: aiohttp.ClientResponse) -> None:
    """End a watch at once: a farewell in TLS waits for the other end, which may be long gone."""
    if answer.connection and answer.connection.transport:
        answer.connection.transport.abort()
    answer.close()


def brief(error: Exception) -> str:
    """In one line, and in the same words each time: a query has other numbers at each attempt."""
    return QUERY.sub("", " ".join(str(error).split())) or type(error).__name__


def line(where: Where, pace: Pace) -> Line:
    """The cluster that the configuration means."""
    there = Line(
        InCluster() if where.in_cluster else Kubeconfig(where.kubeconfig, where.context), pace
    )
    if not where.secret:
        return there
    return Line(InSecret(there, *where.secret), pace, there)
