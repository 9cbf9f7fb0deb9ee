"""The mutating webhook's route: reviews in, answers out. Whoever serves it brings TLS."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.review import NoReview, Told, review

INJECT = "/inject"
LARGEST = 8 << 20  # bytes of a review; etcd takes 1.5 MB of an object


def app(
    injection: Callable[[], Injection], roots: Callable[[], str], namespaces: Told, own: str
) -> FastAPI:
    """`injection` and `roots` are asked each time: both may change while it runs.

    `own`: the control plane's own namespace, whose pods are left alone.
    """
    api = FastAPI(title="meshfed injection", openapi_url=None)

    @api.post(INJECT)
    async def inject(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse("larger than 8 MiB\n", status_code=413)
        try:
            answer = review(body, namespaces, injection(), roots(), own)
        except NoReview as why:
            return PlainTextResponse(f"{why}\n", status_code=400)
        return Response(answer, media_type="application/json")

    return api
