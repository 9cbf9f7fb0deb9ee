"""The mutating webhook's route: reviews in, answers out. Whoever serves it brings TLS."""

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from meshfed.federation.inject.decide import Namespace
from meshfed.federation.inject.injection import Injection, Sidecar
from meshfed.federation.inject.raw import Unfit
from meshfed.federation.inject.review import NoReview, answered, asked, home

INJECT = "/inject"
LARGEST = 8 << 20  # bytes of a review; etcd takes 1.5 MB of an object

log = structlog.get_logger()


class Unasked(Exception):
    """The cluster cannot be asked now; one line."""


class Known(Protocol):
    """What is known of one cluster."""

    async def told(self, name: str) -> Namespace | None:
        """A namespace; None where there is none. Raises Unasked."""
        ...

    async def native(self) -> bool:
        """Whether all of its nodes know native sidecars. Raises Unasked."""
        ...


def app(
    injection: Callable[[], Injection], roots: Callable[[], str], clusters: Mapping[str, Known]
) -> FastAPI:
    """`injection` and `roots` are asked each time: both may change while it runs.

    `clusters` by their providers. Reviews do not say which cluster they are of: the path does, and
    without a name it is the first.
    """
    api = FastAPI(title="meshfed injection", openapi_url=None)

    @api.post(INJECT)
    async def inject(request: Request) -> Response:
        return await reviewed(request, next(iter(clusters.values())))

    @api.post(f"{INJECT}/{{cluster}}")
    async def inject_elsewhere(cluster: str, request: Request) -> Response:
        if cluster not in clusters:
            return PlainTextResponse(f"no provider is called {cluster}\n", status_code=404)
        return await reviewed(request, clusters[cluster])

    async def reviewed(request: Request, cluster: Known) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse("larger than 8 MiB\n", status_code=413)
        current = injection()
        try:
            review = asked(body)
            namespace = await cluster.told(name) if (name := home(review)) else None
            if current.sidecar is Sidecar.AUTO and not await cluster.native():
                current = current.model_copy(update={"sidecar": Sidecar.CLASSIC})
            answer = answered(review, namespace, current, roots(), current.namespace)
        except (NoReview, Unfit) as why:
            return PlainTextResponse(f"{why}\n", status_code=400)
        except Unasked as why:
            log.warning("review not answered", reason=str(why))
            return PlainTextResponse(f"{why}\n", status_code=503)
        return Response(answer, media_type="application/json")

    return api
