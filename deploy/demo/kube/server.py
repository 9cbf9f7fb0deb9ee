"""An API server that runs in a thread of the test's process."""

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from meshfed.demo.kube import writing
from meshfed.demo.kube.access import ADMIN, Tokens
from meshfed.demo.kube.accounts import Mint
from meshfed.demo.kube.asked import Asked, Target
from meshfed.demo.kube.faults import Faults
from meshfed.demo.kube.http import Api, Call
from meshfed.demo.kube.kinds import NAMESPACE, Kind
from meshfed.demo.kube.objects import Key, Object, key
from meshfed.demo.kube.papers import LOOPBACK, Paper
from meshfed.demo.kube.store import Store, Stored

T = TypeVar("T")
BOOKMARKS = 60.0  # seconds; a real one sends about one a minute
GRACE = 0.05  # seconds for requests under way when it stops
FIRST = ("default", "kube-node-lease", "kube-public", "kube-system")


def begun(store: Store) -> Store:
    """What every cluster has: its namespaces, and the service that its API server is."""
    for name in FIRST:
        thing = {"metadata": {"name": name}}
        writing.create(store, NAMESPACE, Target("", "v1", "namespaces"), Asked(), thing)
    port: Object = {"name": "https", "port": 443, "targetPort": 6443}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Object = {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"ports": [port]},
    }
    named = {"kubernetes.io/service-name": "kubernetes"}
    slice_: Object = {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": named},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": 6443}],
    }
    for group, plural, thing in (
        ("", "services", service),
        ("discovery.k8s.io", "endpointslices", slice_),
    ):
        kind = store.kind(group, "v1", plural)
        writing.create(store, kind, Target(group, "v1", plural, "default"), Asked(), thing)
    return store


class Server:
    def __init__(
        self, trust: Path, paper: Paper, *, port: int = 0, bookmarks: float = BOOKMARKS
    ) -> None:
        self.store = begun(Store())
        self.tokens = Tokens(Mint(self.store))
        self.token = self.tokens.issue(ADMIN)
        self.faults = Faults(self.store, self.call)
        self.api = Api(self.store, self.tokens, self.faults, bookmarks)
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trust))
        self.tls.load_cert_chain(paper.certificate, paper.key)
        self.tls.verify_mode = ssl.CERT_OPTIONAL
        self.port = port
        self.runner: web.AppRunner | None = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        self._run(self._start())

    def stop(self) -> None:
        """Its connections end, and new ones are refused; what it stored is there afterwards."""
        self._run(self._stop())

    def restart(self) -> None:
        """As after an upgrade: the same port and objects, and a watch cache without a past."""
        self.stop()
        self.call(self.store.compact)
        self.start()

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(self.api.calls)

    def counted(self) -> Counter[tuple[str, str]]:
        """Requests by verb and resource."""
        return Counter((call.verb, call.resource) for call in self.calls)

    def forget_calls(self) -> None:
        self.api.calls.clear()

    def rotate(self) -> str:
        """Another token is good from now on; the old one is refused."""
        old, self.token = self.token, self.tokens.issue(ADMIN)
        self.tokens.withdraw(old)
        return self.token

    def plant(self, *things: Object) -> None:
        """Stores objects that nobody checked, as an API server that validates less would."""
        self.call(lambda: [self._plant(deepcopy(thing)) for thing in things])

    def _plant(self, thing: Object) -> Stored:
        kind, at = self._place(thing)
        before = self.store.get(kind, at)
        uid = before.object["metadata"]["uid"] if before else f"planted-{self.store.revision}"
        thing["metadata"].setdefault("uid", uid)
        return self.store.write(kind, "MODIFIED" if before else "ADDED", thing, before)

    def _place(self, thing: Object) -> tuple[Kind, Key]:
        kinds = self.store.kinds.values()
        written = thing["apiVersion"], thing["kind"]
        kind = next(each for each in kinds if (each.api_version, each.name) == written)
        return kind, key(thing)

    def uproot(self, *things: Object) -> None:
        """Takes away what was planted."""
        self.call(lambda: [self._uproot(thing) for thing in things])

    def _uproot(self, thing: Object) -> Stored | None:
        kind, at = self._place(thing)
        before = self.store.get(kind, at)
        return before and self.store.write(kind, "DELETED", deepcopy(before.object), before)

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def call(self, act: Callable[[], T]) -> T:
        """Runs in the server's loop, where the store lives."""

        async def run() -> T:
            return act()

        return self._run(run())

    def _run(self, act: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(act, self.loop).result(timeout=30)

    async def _start(self) -> None:
        self.runner = web.AppRunner(
            self.api.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=GRACE,
        )
        await self.runner.setup()
        site = web.TCPSite(self.runner, LOOPBACK, self.port, ssl_context=self.tls)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def _stop(self) -> None:
        if self.runner is None or self.runner.server is None:
            return
        open_ = [each.transport for each in self.runner.server.connections if each.transport]
        await self.runner.cleanup()
        for each in open_:
            each.abort()  # a client that keeps its connections never says farewell in TLS
        await asyncio.sleep(0)
        self.runner = None
