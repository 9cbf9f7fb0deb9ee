"""The API over HTTP: routes, bodies, answers, and a record of who asked for what."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import yaml
from aiohttp import web

from meshfed.demo.kube import access, accounts, protobuf, selectors, writing
from meshfed.demo.kube.admission import Admission
from meshfed.demo.kube.asked import Asked, Target, asked, target, verb
from meshfed.demo.kube.discovery import discovered
from meshfed.demo.kube.faults import Faults
from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.objects import (
    NoSuchPath,
    Object,
    Refusal,
    bad_request,
    encode,
    invalid,
    no_such_resource,
    unsupported,
)
from meshfed.demo.kube.reading import Cut, page, watch
from meshfed.demo.kube.store import Store
from meshfed.demo.kube.tables import table

LARGEST = 3 * 1024 * 1024  # a real one takes as much
DISCOVERY = ("/version", "/api", "/apis", "/openapi")
PROTOBUF = "application/vnd.kubernetes.protobuf"
HEALTH = ("/healthz", "/livez", "/readyz")


@dataclass(frozen=True)
class Call:
    """One request, as RBAC sees it."""

    user: str
    verb: str
    group: str
    resource: str  # with its subresource: pods/status
    namespace: str
    name: str


class Api:
    def __init__(self, store: Store, tokens: access.Tokens, faults: Faults, every: float) -> None:
        self.store = store
        self.tokens = tokens
        self.faults = faults
        self.every = every  # seconds between bookmarks
        self.calls: list[Call] = []
        self.admission = Admission(store)
        self.bugs: list[Exception] = []  # of this server; they fail the test at its end

    def application(self) -> web.Application:
        application = web.Application(client_max_size=LARGEST, middlewares=[self.answered])
        application.router.add_route("*", "/{path:.*}", self.answer)
        return application

    @web.middleware
    async def answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.faults.silent:
            await asyncio.Event().wait()
        try:
            answer = await handler(request)
        except Refusal as refusal:
            headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
            answer = _json(encode(refusal.status), refusal.code, headers)
        except NoSuchPath:
            answer = web.Response(status=404, text="404 page not found\n")
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as bug:
            self.bugs.append(bug)
            raise
        if self.faults.silent and not answer.prepared:
            await asyncio.Event().wait()
        return answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        user = self._user(request)
        if path in HEALTH:
            return web.Response(text="ok")
        if path in DISCOVERY or path.startswith("/openapi/") or path.count("/") < 3:
            return self._discovery(request, user, path)
        if path.startswith("/apis/") and path.count("/") == 3:
            return self._discovery(request, user, path)
        return await self._resource(request, user)

    def _user(self, request: web.Request) -> access.User:
        transport = request.transport
        shown = transport.get_extra_info("ssl_object") if transport else None
        certificate = shown.getpeercert() if shown else None
        return self.tokens.user(request.headers.get("Authorization", ""), certificate)

    def _discovery(self, request: web.Request, user: access.User, path: str) -> web.Response:
        if refusal := self.faults.injected("get", path):
            raise refusal
        access.permit_path(user, path)
        if request.method != "GET":
            raise Refusal(405, "MethodNotAllowed", f"{request.method} is not allowed here")
        return _json(encode(discovered(self.store, path)))

    async def _resource(self, request: web.Request, user: access.User) -> web.StreamResponse:
        of = target(request.path)
        said = asked(request.query)
        if not said.manager and request.content_type != writing.APPLY:
            agent = request.headers.get("User-Agent", "unknown")
            said = replace(said, manager=agent.partition("/")[0])
        does = verb(request.method, of, said)
        # Who may not do something with a namespace is asked about it by its own name.
        within = of.name if of.plural == "namespaces" else of.namespace
        self.calls.append(Call(user.name, does, of.group, of.resource, within, of.name))
        if refusal := self.faults.injected(does, of.plural):
            raise refusal
        # Who lists by a name asks about that one, as RBAC sees it.
        named = replace(of, name=of.name or selectors.name(said.fields))
        access.permit(self.store, user, does, named, within)
        if (of.group, of.resource, does) == (accounts.GROUP, "tokenreviews", "create"):
            return _json(encode(self.tokens.reviewed(await _body(request, does))), 201)
        kind = self._kind(of)
        if does == "watch":
            return await self._watch(request, kind, of, said)
        if does in ("get", "list"):
            return self._read(request, kind, of, said)
        if of.subresource == "token":
            asked_for = await _body(request, does)
            given = self.tokens.mint.requested(of.namespace, of.name, asked_for)
            return _json(encode(given), 201)
        body, warnings = await _body(request, does), list[str]()
        if does == "create":
            body, warnings = await self.admission.mutated(user, kind, of, said, body)
        code, thing = self._written(does, kind, of, said, request, body)
        return _warned(_json(encode(thing), code), warnings)

    def _kind(self, of: Target) -> Kind:
        kind = self.store.kind(of.group, of.version, of.plural)
        subresources = {
            "": True,
            "status": kind.status,
            "finalize": kind.name == "Namespace",
            "token": kind.name == "ServiceAccount",
        }
        homeless = kind.namespaced and bool(of.name) and not of.namespace
        strange = bool(of.namespace) and not kind.namespaced
        if homeless or strange or not subresources.get(of.subresource):
            raise no_such_resource()
        return kind

    def _read(self, request: web.Request, kind: Kind, of: Target, said: Asked) -> web.Response:
        tabular = "as=Table" in request.headers.get("Accept", "")
        if of.name:
            stored = writing.found(self.store, kind, of)
            if not tabular:
                return _json(stored.encoded(kind))
            thing = stored.of(kind)
            version = {"resourceVersion": thing["metadata"]["resourceVersion"]}
            return _json(encode(table(kind, version, [thing])))
        found = page(self.store, kind, of, said)
        if tabular:
            things = [each.of(kind) for each in found.items]
            return _json(encode(table(kind, found.metadata, things)))
        return _json(found.encoded())

    async def _watch(
        self, request: web.Request, kind: Kind, of: Target, said: Asked
    ) -> web.StreamResponse:
        if said.initial is not None and self.faults.without_watchlist:
            why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is on"
            raise invalid("meta.k8s.io", "ListOptions", "", [("sendInitialEvents", why)])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        async with aclosing(watch(self.store, kind, of, said, self.every)) as lines:
            try:
                async for some in lines:
                    if not response.prepared:
                        await response.prepare(request)
                    if some:
                        await response.write(some)
            except Cut:
                if request.transport:
                    request.transport.abort()
        return response

    def _written(
        self, does: str, kind: Kind, of: Target, said: Asked, request: web.Request, body: Object
    ) -> tuple[int, Object]:
        match does:
            case "create":
                return 201, writing.create(self.store, kind, of, said, body)
            case "update":
                return 200, writing.update(self.store, kind, of, said, body)
            case "patch":
                content = request.content_type
                thing, new = writing.patch(self.store, kind, of, said, content, body)
                return 201 if new else 200, thing
            case "delete":
                return 200, writing.delete(self.store, kind, of, said, body)
            case _:
                return 200, writing.delete_all(self.store, kind, of, said, body)


async def _body(request: web.Request, does: str) -> Object:
    """Raises Refusal."""
    raw = await request.read()
    if not raw:
        if does in ("delete", "deletecollection"):
            return {}
        raise bad_request("a body is required")
    content = request.content_type if "Content-Type" in request.headers else "application/json"
    if content == PROTOBUF:
        return protobuf.decoded(raw)
    if "yaml" not in content and "json" not in content:
        raise unsupported(["application/json", "application/yaml", PROTOBUF])
    try:
        read: Object = (
            yaml.load(raw, yaml.CSafeLoader)
            if "yaml" in content
            else json.loads(raw, parse_float=_number)
        )
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body cannot be read: {error}") from error
    return read


def _warned(answer: web.Response, warnings: list[str]) -> web.Response:
    """https://www.rfc-editor.org/rfc/rfc7234#section-5.5"""
    for each in warnings:
        quoted = each.replace("\\", "\\\\").replace('"', '\\"')
        answer.headers.add("Warning", f'299 - "{quoted}"')
    return answer


def _number(text: str) -> float | int:
    """Go writes 1.0 as 1, so that is what comes back."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _json(body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=code, content_type="application/json", headers=headers)
