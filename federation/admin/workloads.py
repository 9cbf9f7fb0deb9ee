"""Workloads that are registered by hand, over the admin API: the same words as the command's."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from meshfed.catalog.document import dotted
from meshfed.catalog.model import Endpoint, Workload
from meshfed.catalog.store import Away, Taken, Unregistered
from meshfed.federation import register
from meshfed.federation.admin.aside import Home
from meshfed.providers.hostlist import explain
from meshfed.providers.listing import Wrong
from meshfed.providers.registered import Registration

PROBLEM = "application/problem+json"  # RFC 9457


class Catalog(register.Register, Protocol):
    """What is asked of the catalog."""

    async def deregister(self, name: str, who: str) -> int | None: ...
    async def registered(self) -> Sequence[tuple[Workload, frozenset[Endpoint]]]: ...


class Registered(BaseModel):
    """A workload as it is registered: what POST takes."""

    name: str
    address: list[str]
    service: list[str] = Field(description="<name>.<namespace>:<port>")
    identity: str | None = None
    interception: str
    platform: str
    locality: str | None = None


class Written(BaseModel):
    """What became of a request."""

    name: str
    revision: int | None = Field(description="the catalog's new revision; null: nothing changed")


class Mistake(BaseModel):
    field: str
    reason: str


class Problem(BaseModel):
    """Why a request was refused, as in RFC 9457."""

    title: str
    status: int
    detail: str
    errors: list[Mistake] = []


REASONS = {
    404: "Nobody registered it",
    409: "Another provider has a workload of that name",
    415: "It is not application/json",
    422: "It is no workload: each mistake with its field",
    503: "The catalog is away",
}


class NotJson(Exception):
    """A body that any web page could have sent."""


REFUSED: Mapping[type[Exception], tuple[int, str]] = {  # status, and the field that is to blame
    Unregistered: (404, "name"),
    Taken: (409, "name"),
    NotJson: (415, "content-type"),
    Away: (503, ""),
}


def offer(api: FastAPI, catalog: Catalog, home: Home) -> None:
    """Register, list and deregister workloads through this API."""
    api.include_router(_routes(catalog, home))

    @api.exception_handler(Wrong)
    async def wrong(_: Request, error: Wrong) -> JSONResponse:
        return problem(422, Mistake(field=error.field, reason=error.why))

    for kind, (status, field) in REFUSED.items():
        api.add_exception_handler(kind, _refusal(status, field))


def refusals(api: FastAPI) -> None:
    """What FastAPI itself refuses is told as everything else is."""

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, *map(mistake, error.errors()))

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        why = {
            404: f"nothing is at {request.url.path}",
            405: f"{request.method} is not done there",
        }.get(error.status_code, error.detail)
        answer = problem(error.status_code, Mistake(field="", reason=why))
        answer.headers.update(error.headers or {})
        return answer


def _refusal(status: int, field: str) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def refusal(_: Request, error: Exception) -> JSONResponse:
        return problem(status, Mistake(field=field, reason=str(error)))

    return refusal


def json_only(request: Request) -> None:
    """A page from elsewhere can make a browser post forms and plain text here, but not JSON: for
    that it would have to ask this API first, which never consents."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise NotJson(f"{kind!r} is not application/json")


def _routes(catalog: Catalog, home: Home) -> APIRouter:
    routes = APIRouter(prefix="/v1/workloads", tags=["workloads"])

    @routes.get("", responses=_answers(503), response_model_exclude_none=True)
    @home.does
    async def listed() -> list[Registered]:
        """The workloads that were registered by hand, as POST takes them."""
        return [shown(*each) for each in await catalog.registered()]

    @routes.post("", dependencies=[Depends(json_only)], responses=_answers(409, 415, 422, 503))
    @home.does
    async def registered(workload: Registration, request: Request) -> Written:
        """Make a workload known to the mesh; the same name again replaces it."""
        revision = await register.register(catalog, workload, caller(request))
        return Written(name=workload.name, revision=revision)

    @routes.delete("/{name}", responses=_answers(404, 503))
    @home.does
    async def deregistered(name: str, request: Request) -> Written:
        """Take it out of the mesh: nobody calls it, and its proxy's stream ends."""
        return Written(name=name, revision=await catalog.deregister(name, caller(request)))

    return routes


def caller(request: Request) -> str:
    """Who asks, as `mesh_changes` has it: there is no credential on a loopback address."""
    return f"admin API, from {request.client.host if request.client else 'nowhere'}"


def shown(workload: Workload, serves: frozenset[Endpoint]) -> Registered:
    return Registered(
        name=workload.name,
        address=list(workload.addresses),
        service=sorted({f"{endpoint.service}:{endpoint.target}" for endpoint in serves}),
        identity=str(workload.identity) if workload.identity else None,
        interception=workload.interception,
        platform=workload.platform,
        locality=str(workload.locality) or None,
    )


def mistake(error: ErrorDetails) -> Mistake:
    place, *path = error["loc"]
    if error["type"] == "json_invalid":
        why = f"not JSON, from its character {path[0]} on: {error['ctx']['error']}"
        return Mistake(field=str(place), reason=why)
    if place != "body":
        return Mistake(field=dotted(error["loc"]), reason=error["msg"])
    own: ErrorDetails = {**error, "loc": tuple(path)}
    return Mistake(field=dotted(own["loc"]), reason=explain(own, Registration))


def problem(status: int, *mistakes: Mistake, **more: object) -> JSONResponse:
    """`more`: members of its own (RFC 9457, 3.2)."""
    said = [": ".join(filter(None, (each.field, each.reason))) for each in mistakes]
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail="; ".join(said), errors=list(mistakes))
    members = {**body.model_dump(), **more}
    return JSONResponse(members, status_code=status, media_type=PROBLEM)


def _answers(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: {"description": REASONS[status], "model": Problem} for status in statuses}
