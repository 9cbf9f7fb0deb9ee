"""An API server that has N EndpointSlices and changes them: `python apiserver.py N [pods]`.

It lists by a watch only, and knows no object but by its line: all that it costs is sending.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator

from aiohttp import web

EACH = 10  # endpoints in a slice
BOOKMARKS = 30.0  # seconds between them
NAMESPACE = "bench"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
NOISE = {f"example.com/annotation-{n}": "x" * 80 for n in range(4)}  # as real objects have


def main() -> None:
    count, pods = int(sys.argv[1]), "pods" in sys.argv
    web.run_app(Api(count, pods=pods).app(), host="127.0.0.1", port=0, access_log=None, print=_told)


class Api:
    def __init__(self, count: int, *, pods: bool) -> None:
        self.count = count
        self.lists = {
            "/api/v1/nodes": b"",
            f"{CORE}/services": b"".join(line("ADDED", service(n)) for n in range(count)),
            f"{CORE}/pods": b"".join(line("ADDED", pod(n)) for n in range(count * EACH) if pods),
            SLICES: b"".join(line("ADDED", slices(n, pods=pods)) for n in range(count)),
        }
        self.pods = pods
        self.watchers: list[web.StreamResponse] = []  # of slices

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/change", self.change)
        app.router.add_get("/{path:.*}", self.watch)
        return app

    async def watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        if request.query.get("sendInitialEvents"):
            body = self.lists[request.path]
            for start in range(0, len(body), 1 << 18):
                await answer.write(body[start : start + (1 << 18)])
            ended = {"k8s.io/initial-events-end": "true"}
            metadata = {"resourceVersion": "1", "annotations": ended}
            await answer.write(line("BOOKMARK", {"metadata": metadata}))
        if request.path == SLICES:
            self.watchers = [answer]
        while True:
            await asyncio.sleep(BOOKMARKS)
            await answer.write(line("BOOKMARK", {"metadata": {"resourceVersion": "1"}}))

    async def change(self, request: web.Request) -> web.Response:
        """So many a second: in each one endpoint is different, whose zone says when it was sent."""
        rate, seconds = int(request.query["rate"]), float(request.query["seconds"])
        begun, used, sent = time.monotonic(), time.process_time(), 0
        while sent < rate * seconds:
            wanted = min(int((time.monotonic() - begun) * rate), int(rate * seconds))
            lines = [
                line("MODIFIED", slices(n % self.count, pods=self.pods, zone=f"{time.time():.4f}"))
                for n in range(sent * 7919, wanted * 7919, 7919)
            ]
            sent = wanted
            for watcher in self.watchers:
                await watcher.write(b"".join(lines))
            await asyncio.sleep(0.005)
        spent = {"seconds": time.monotonic() - begun, "cpu": time.process_time() - used}
        return web.json_response({"sent": sent, **spent})


def _told(text: str) -> None:
    for word in text.split():
        if word.startswith("http://"):
            print(word, flush=True)


def line(kind: str, thing: dict[str, object]) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def metadata(name: str, labels: dict[str, str] | None = None) -> dict[str, object]:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "labels": labels or {},
        "annotations": NOISE,
        "managedFields": [{"manager": "bench", "fieldsV1": {f"f:{n}": {} for n in range(60)}}],
    }


def service(n: int) -> dict[str, object]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    return {"metadata": metadata(f"s{n}"), "spec": {"ports": ports, "selector": {"app": f"s{n}"}}}


def address(n: int) -> str:
    return f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def pod(n: int) -> dict[str, object]:
    return {
        "metadata": metadata(f"p{n}", {"app": f"s{n // EACH}"}),
        "spec": {
            "serviceAccountName": f"s{n // EACH}",
            "nodeName": f"node-{n % 500}",
            "containers": [{"name": "app", "image": "app", "env": [NOISE] * 4}],
        },
        "status": {"phase": "Running", "podIPs": [{"ip": address(n)}]},
    }


def endpoints(n: int, *, pods: bool, zone: str) -> Iterator[dict[str, object]]:
    for m in range(n * EACH, (n + 1) * EACH):
        found: dict[str, object] = {
            "addresses": [address(m)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{m % 500}",
            "zone": zone if zone and m % EACH == 0 else f"zone-{m % 3}",
        }
        if pods:
            named = {"name": f"p{m}", "namespace": NAMESPACE, "uid": f"uid-p{m}"}
            found["targetRef"] = {"kind": "Pod", **named}
        yield found


def slices(n: int, *, pods: bool, zone: str = "") -> dict[str, object]:
    return {
        "metadata": metadata(f"s{n}-x", {"kubernetes.io/service-name": f"s{n}"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": list(endpoints(n, pods=pods, zone=zone)),
    }


if __name__ == "__main__":
    main()
