"""The admin API: is it alive, is it ready, and which proxies have which revision."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Annotated, Literal, Protocol

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from meshfed.catalog.reports import ProxyState
from meshfed.federation.admin.aside import Home
from meshfed.federation.admin.workloads import Mistake, Problem, problem, refusals
from meshfed.federation.gate import Gate, Limits
from meshfed.federation.propagation import Propagation

LONGEST_WAIT = 60.0
HUNG = 30.0  # seconds without a sign of life
CONNECTIONS = 1000  # at once; beyond them the answer is 503, beyond twice as many there is none
BACKLOG = 2048  # that wait to be accepted
ROOM = Limits(2 * CONNECTIONS)
GRACE = 1  # seconds for requests under way when the control plane stops


class Standing(Protocol):
    """What the running mesh knows of itself."""

    def unready(self) -> Sequence[str]:
        """Why it must not serve yet; empty when it may."""
        ...

    def degraded(self) -> Sequence[str]:
        """What it does without, though it serves."""
        ...

    def replica(self) -> str:
        """Its own name."""
        ...

    def leader(self) -> str:
        """The name of the replica that leads, or led last."""
        ...

    def revision(self) -> int: ...

    async def settled(self, revision: int, seconds: float) -> Propagation | None:
        """How it reached every proxy, waiting so long for that; None when it has not."""
        ...

    def proxies(self) -> Sequence[ProxyState]: ...


def unsettled(revision: int, newest: int, proxies: Sequence[ProxyState]) -> str:
    """Why there is nothing to say of a revision."""
    if revision > newest:
        return f"not committed yet: the newest revision is {newest}"
    lacking = sum(proxy.behind is not None and proxy.behind <= revision for proxy in proxies)
    if lacking:
        return f"{lacking} of {len(proxies)} proxies do not have it yet"
    return "not measured: every proxy has it, from before this control plane started"


def is_local_name(host: str) -> bool:
    """Whether a Host header can only mean this machine, whatever DNS says.

    A web page can point its own name at 127.0.0.1 and then read this API from a browser here;
    what it cannot do is make that browser send another name, or an address.
    """
    bare = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    name = bare.rstrip(".").lower()
    return _is_address(name) or name in ("localhost", socket.gethostname().lower())


def health(standing: Standing, registry: CollectorRegistry, home: Home) -> FastAPI:
    """What kubelets and Prometheus ask from elsewhere: to read, and nothing of who is connected."""
    api = FastAPI(title="meshfed health", openapi_url=None)
    _standing(api, standing, registry, home)
    return api


def _standing(api: FastAPI, standing: Standing, registry: CollectorRegistry, home: Home) -> None:
    refusals(api)

    @api.get(
        "/healthz",
        response_class=PlainTextResponse,
        responses={503: {"description": f"Nothing has moved for {HUNG:.0f} s"}},
    )
    async def healthz() -> Response:
        """Alive: the loop of the mesh moves on, however busy it is."""
        if home.silence < HUNG:
            return PlainTextResponse("ok\n")
        return PlainTextResponse(f"nothing has moved for {home.silence:.0f} s\n", 503)

    @api.get("/readyz", responses={503: {"description": "Not every source was observed yet"}})
    @home.does
    async def readyz() -> JSONResponse:
        """Ready: every source was observed once, or is known to fail."""
        reasons = list(standing.unready())
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "degraded": list(standing.degraded()),
            "replica": standing.replica(),
            "leader": standing.leader(),
        }
        return JSONResponse(body, status_code=503 if reasons else 200)

    @api.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Everything measured, for Prometheus."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})


def app(standing: Standing, registry: CollectorRegistry, home: Home) -> FastAPI:
    """Answers on any loop; what it asks of the mesh is asked at home."""
    api = FastAPI(title="meshfed", description="The control plane's own state", version="1")

    @api.middleware("http")
    async def refuse_rebound_names(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        reached = (request.scope.get("server") or ("",))[0]
        host = request.headers.get("host", "")
        if _is_loopback(reached) and not is_local_name(host):
            why = f"{host!r} is not a name of this machine: use localhost or its address"
            return problem(421, Mistake(field="host", reason=why))
        return await answer(request)

    _standing(api, standing, registry, home)

    @api.get("/v1/revisions/current")
    @home.does
    async def current() -> dict[str, int]:
        """The revision that proxies are told."""
        return {"revision": standing.revision()}

    @api.get(
        "/v1/revisions/{revision}",
        responses={404: {"description": "Not everyone has it", "model": Problem}},
    )
    @home.does
    async def propagation(
        revision: int,
        wait: Annotated[
            float, Query(ge=0, description="Seconds to wait for the last proxy, at most 60")
        ] = 0.0,
    ) -> JSONResponse:
        """How long a revision took to reach every connected proxy; times since the epoch."""
        reached = await standing.settled(revision, min(wait, LONGEST_WAIT))
        if reached is not None:
            return JSONResponse(_told(reached))
        why = unsettled(revision, standing.revision(), standing.proxies())
        return problem(404, Mistake(field="", reason=why), revision=revision, reason=why)

    @api.get("/v1/proxies")
    @home.does
    async def proxies() -> list[dict[str, object]]:
        """The proxies connected to this replica."""
        return [_shown(proxy) for proxy in standing.proxies()]

    return api


def bound(address: str, setting: str = "admin.listen") -> socket.socket:
    """A socket on `host:port` before anything else starts. Raises OSError that says what to do."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    # Said to be TCP: of other sockets asyncio does not know that answers should not be kept back.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = _why(error)
        raise OSError(f"{setting}: cannot listen on {address}: {why}: name another") from error
    return listener


async def serve(
    api: FastAPI,
    listener: socket.socket,
    tls: ssl.SSLContext | None = None,
    http: Callable[..., asyncio.Protocol] | Literal["auto"] = "auto",
    *,
    refused: Callable[[str], None],
    door: str = "admin.listen",
    limits: Limits = ROOM,
) -> None:
    """Answer on a bound socket until cancelled; signals are someone else's.

    `door`: the setting that names it; `refused` is told of it for each connection that is.
    """
    config = uvicorn.Config(
        api,
        log_config=None,  # its loggers end in ours
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,  # a header would say who asks
        limit_concurrency=CONNECTIONS,
        http=http,  # type: ignore[arg-type]  # it is called, and nothing else
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    state = server.server_state

    def connection() -> asyncio.Protocol:
        made: Callable[..., asyncio.Protocol] = config.http_protocol_class
        return made(config=config, server_state=state, app_state=server.lifespan.state)

    # The parts of Server.serve() without its signal handlers, which would replace ours, and
    # without its accepting, which counts nobody before a handshake is over.
    await server.startup(sockets=[])
    try:
        async with asyncio.TaskGroup() as tasks:
            gate = Gate(
                door,
                listener,
                connection,
                tls,
                limits=limits,
                connected=lambda: len(state.connections),
                refused=refused,
            )
            tasks.create_task(gate.run())
            tasks.create_task(server.main_loop())
    finally:
        await server.shutdown(sockets=[listener])


def _told(reached: Propagation) -> dict[str, float]:
    return {
        "revision": reached.revision,
        "committed_at": reached.committed_at,
        "last_ack_at": reached.last_ack_at,
        "proxies": reached.proxies,
        "ms": reached.ms,
    }


def _shown(proxy: ProxyState) -> dict[str, object]:
    return {
        "proxy": proxy.proxy,
        "workload": proxy.workload,
        "identity": str(proxy.identity),
        "connected_since": proxy.connected_since,
        "state": proxy.state,
        "reason": proxy.reason,
        "behind": proxy.behind,
        "envoy_version": proxy.envoy_version,
    }


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process has this port"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ip_address(text).is_loopback
