"""The join server: HTTPS on a port of its own, for machines that are not in the mesh yet."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from meshfed.catalog.database import stamp
from meshfed.catalog.document import dotted
from meshfed.catalog.joins import Given, Joins, Unadmitted
from meshfed.catalog.model import Workload
from meshfed.catalog.store import Away, Taken
from meshfed.federation import files
from meshfed.federation.admin import app as admin
from meshfed.federation.admin.workloads import PROBLEM, Problem
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.issuer import Issuer, Unissuable
from meshfed.federation.certificates.keypair import PATIENCE, pem
from meshfed.federation.certificates.proxyfiles import identity, names
from meshfed.federation.join import tls
from meshfed.federation.join.answer import Answer, Leased
from meshfed.federation.join.attendance import Attendance
from meshfed.federation.join.methods import ByCertificate, Caller, Method
from meshfed.federation.join.nonce import Nonces
from meshfed.federation.join.pace import Pace
from meshfed.federation.join.request import Asked, Refused, Report, signing_request
from meshfed.providers.hostlist import NAME

LARGEST = 16 * 1024  # bytes of a body
PATIENT = 10.0  # seconds for a body to come
LONGEST = 300  # characters of a reason
NAMED = re.compile(NAME)
SILENCE = "this address is refused for a minute now, and no more of it is told"

REASONS = {
    400: "The body or the CSR is malformed",
    401: "The token is none that stands",
    403: "The certificate, or what the CSR asks for, is not let in",
    408: f"The body did not come within {PATIENT:.0f} s",
    409: "The name is another's",
    413: f"The body has more than {LARGEST} bytes",
    422: "What the machine says of itself cannot be",
    429: "Too many refusals from this address: wait a minute",
    503: "The catalog or the issuer is away",
}

log = structlog.get_logger()


class Desk:
    """Decides who is let in, signs for those, and tells the catalog of everyone."""

    def __init__(
        self,
        joins: Joins,
        methods: Sequence[Method],
        issuer: Issuer,
        *,
        trust_domain: str,
        lifetime: timedelta,
        xds: Callable[[], str],
        pace: Pace,
        attendance: Attendance,
        nonces: Nonces,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._joins = joins
        self._holder = ByCertificate(joins, trust_domain)
        self._methods = methods
        self._issuer = issuer
        self._trust_domain = trust_domain
        self._lifetime = lifetime
        self._xds = xds
        self._pace = pace
        self.attendance = attendance
        self.nonces = nonces
        self._clock = clock

    async def join(self, asked: Asked, caller: Caller) -> Answer:
        """Raises Refused."""
        method = next((each for each in self._methods if each.presented(asked, caller)), None)
        if method is None:
            why = "neither a token nor a certificate of this mesh was shown"
            raise Refused(401, why, asked.untrusted_name)
        grant = await method.examine(asked, caller)
        workload = grant.workload
        try:
            csr = signing_request(asked.csr)
        except Refused as refused:
            raise Refused(refused.status, refused.why, workload.name) from refused
        async with asyncio.timeout(PATIENCE):
            chain = await self._issuer.sign(
                csr, names(workload, self._trust_domain), self._lifetime
            )
        bundle = await self.bundle()
        try:
            ends = stamp(chain[0].not_valid_after_utc.timestamp())
            # Nobody has the certificate until this is committed.
            await grant.admit(Given(f"{chain[0].serial_number:x}", ends))
        except Unadmitted as why:
            raise Refused(409, str(why), workload.name) from why
        except Taken as taken:
            why_not = f"{taken.whose}: join with another --name"
            raise Refused(409, why_not, workload.name) from taken
        who = str(identity(workload))
        log.info("admitted", workload=workload.name, identity=who, by=caller.who)
        return Answer(
            name=workload.name,
            identity=who,
            trust_domain=self._trust_domain,
            certificate=pem(chain),
            bundle=bundle,
            xds=self._xds(),
            bind=workload.bind,
            probes=grant.probes,
            interception=workload.interception,
            ports=grant.ports,
        )

    async def lease(self, said: Report, caller: Caller) -> Leased:
        """Raises Refused, Away."""
        await self.attendance.renew(said, caller)
        return Leased(self.attendance.lease.total_seconds())

    async def leave(self, caller: Caller) -> Workload:
        """Raises Refused."""
        workload = await self._holder.holder(caller)
        try:
            await self._joins.leave(workload, caller.serial, caller.who)
        except Unadmitted as why:
            raise Refused(409, str(why), workload.name) from why
        log.info("left", workload=workload.name, by=caller.who)
        return workload

    async def bundle(self) -> str:
        return pem(await self._issuer.roots())

    def exceeded(self, caller: Caller) -> bool:
        """Whether this address was refused so often that it has to wait."""
        return self._pace.exceeded(caller.address, self._clock())

    async def refuse(self, refused: Refused, caller: Caller) -> Response:
        """Tell the catalog, and the machine. The flood after the last refusal is not told."""
        name = refused.name if NAMED.fullmatch(refused.name) else "unnamed"
        why = shown(refused.why)
        left = self._pace.refused(caller.address, self._clock())
        if left >= 0:
            await self._record(name, why if left else f"{why}; {SILENCE}", caller)
        return problem(refused.status, why)

    async def _record(self, name: str, why: str, caller: Caller) -> None:
        log.warning("join refused", workload=name, reason=why, by=caller.who)
        try:
            await self._joins.refused(name, why, caller.who)
        except Away as away:
            log.warning("refusal not recorded", workload=name, reason=str(away))


def shown(why: str) -> str:
    """On one line, and not a long one: strangers choose some of the words."""
    return "".join(each if each.isprintable() else "?" for each in why[:LONGEST])


def problem(status: int, why: str) -> Response:
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=why)
    return JSONResponse(body.model_dump(), status_code=status, media_type=PROBLEM)


def caller(scope: tls.Scope) -> Caller:
    """Who is at the other end of a connection."""
    found: Caller = scope[tls.CALLER]
    return found


def app(desk: Desk) -> FastAPI:
    api = FastAPI(title="meshfed join", description="How a machine becomes a workload", version="1")
    api.add_middleware(Guard, desk=desk)

    @api.get("/v1/roots", response_class=PlainTextResponse)
    async def roots() -> str:
        """The roots of the mesh, PEM. Believe only one whose SHA-256 you know already."""
        return await desk.bundle()

    @api.get("/v1/nonce", response_class=PlainTextResponse)
    async def nonce() -> str:
        """A number for what a platform attests, good for five minutes."""
        return desk.nonces.made(time.time())

    @api.post("/v1/join", responses=_answers(*REASONS))
    async def join(asked: Asked, request: Request) -> Answer:
        """Be let in, by a token or a document; or renew, by a client certificate of this mesh."""
        return await desk.join(asked, caller(request.scope))

    @api.post("/v1/lease", responses=_answers(400, 401, 403, 409, 413, 429, 503))
    async def lease(said: Report, request: Request) -> Leased:
        """Say that a machine lives, and how it is, by a client certificate of this mesh."""
        return await desk.lease(said, caller(request.scope))

    @api.post("/v1/leave", responses=_answers(401, 403, 409, 429, 503))
    async def leave(request: Request) -> dict[str, str]:
        """Leave the mesh, by a client certificate of it."""
        return {"name": (await desk.leave(caller(request.scope))).name}

    @api.exception_handler(Refused)
    async def refused(request: Request, why: Refused) -> Response:
        return await desk.refuse(why, caller(request.scope))

    @api.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = dotted(tuple(part for part in first["loc"] if part != "body")) or "body"
        why = "not JSON" if first["type"] == "json_invalid" else str(first["msg"])
        return await desk.refuse(Refused(400, f"{field}: {why}"), caller(request.scope))

    @api.exception_handler(HTTPException)
    async def unread(request: Request, error: HTTPException) -> Response:
        if error.status_code != HTTPStatus.BAD_REQUEST:
            return problem(error.status_code, str(error.detail))
        # Not UTF-8, or lists in lists that are too deep for a parser.
        return await desk.refuse(Refused(400, "body: not JSON"), caller(request.scope))

    @api.exception_handler(Away)
    @api.exception_handler(Unissuable)
    @api.exception_handler(TimeoutError)
    async def away(request: Request, why: Exception) -> Response:
        told = str(why) or f"the issuer did not answer within {PATIENCE:.0f} s"
        log.warning("join failed", reason=told, by=caller(request.scope).who)
        return problem(503, told)

    return api


async def serve(
    desk: Desk, listener: socket.socket, control: ControlPlane, refused: Callable[[str], None]
) -> None:
    """Answer on a bound socket until cancelled."""
    made, most = tls.context(control), files.raised() // 2
    room = tls.Room(most)
    http, limits = partial(tls.Connection, room), tls.limits(most)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tls.keep(made, control))
        tasks.create_task(desk.attendance.run())
        answering = admin.serve(
            app(desk), listener, made, http, refused=refused, door="join.listen", limits=limits
        )
        tasks.create_task(answering)


class Guard:
    """Reads a body before anything else does: not too large, not too slowly, not too often."""

    def __init__(self, app: tls.App, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: tls.Scope, receive: tls.Receive, send: tls.Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        who = caller(scope)
        if who.peer and (who.peer.not_after or 0.0) <= time.time():
            over = Refused(401, "certificate: it has ended since this connection began")
            return await (await self._desk.refuse(over, who))(scope, receive, send)
        # Whoever shows a certificate of this mesh is no stranger: it need not wait for one that
        # comes from the same address.
        if who.peer is None and self._desk.exceeded(who):
            return await problem(429, REASONS[429])(scope, receive, send)
        try:
            body = await whole(receive)
        except Refused as refused:
            return await (await self._desk.refuse(refused, who))(scope, receive, send)
        return await self._app(scope, again(body), send)


async def whole(receive: tls.Receive) -> bytes:
    """Raises Refused."""
    body = b""
    try:
        async with asyncio.timeout(PATIENT):
            while True:
                part = await receive()
                body += bytes(part.get("body", b""))
                if len(body) > LARGEST:
                    raise Refused(413, f"body: more than {LARGEST} bytes")
                if part["type"] == "http.disconnect" or not part.get("more_body"):
                    return body
    except TimeoutError as error:
        raise Refused(408, f"body: did not come within {PATIENT:.0f} s") from error


def again(body: bytes) -> tls.Receive:
    """As if it came now."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _answers(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"description": REASONS[status], "model": Problem} for status in statuses}
