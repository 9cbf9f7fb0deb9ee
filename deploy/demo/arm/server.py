"""The tests' Resource Manager over TLS, and its authority's tokens, in a thread of their own."""

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from meshfed.demo.arm.world import World
from meshfed.demo.kube.papers import Authority

T = TypeVar("T")

TENANT = "00000000-0000-0000-0000-00000000000a"
CLIENT = "00000000-0000-0000-0000-00000000000c"
SECRET = "of-nobody"
ENVIRONMENT = {
    "AZURE_TENANT_ID": TENANT,
    "AZURE_CLIENT_ID": CLIENT,
    "AZURE_CLIENT_SECRET": SECRET,
}


class Server:
    def __init__(self, folder: Path, world: World | None = None) -> None:
        self.world = world or World()
        self.refused = False  # the secret is over: no token for it
        self.over = False  # tokens that were given are over
        self.given = 0  # tokens
        self._good: set[str] = set()  # headers with one of them
        self.spent = 0.0  # seconds of work of its own
        self._authority = Authority.make(folder)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        paper = self._authority.serves()
        self._tls.load_cert_chain(paper.certificate, paper.key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner = web.AppRunner(self._app())
        self._port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def cloud(self) -> dict[str, str]:
        """What a configuration says of it."""
        return {"endpoint": self.url, "authority": self.url, "ca": str(self._authority.file)}

    def begin(self) -> None:
        self._thread.start()
        self._do(self._serve())

    def end(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def give(self) -> str:
        """A token, beside those that are not over."""
        self.given += 1
        if self.over:
            self._good.clear()
        self.over = False
        self._good.add(f"Bearer token-{self.given}")
        return f"token-{self.given}"

    def wait(self) -> None:
        """For ever."""
        self._thread.join()

    def fresh(self) -> World:
        """A world of its own for each test."""
        self.world, self.refused, self.over, self.spent = World(), False, False, 0.0
        return self.world

    def _do(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(f"/{TENANT}/oauth2/v2.0/token", self._token)
        app.router.add_get("/{rest:.*}", self._list)
        return app

    async def _serve(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        server = self._runner.server
        open_ = [each.transport for each in server.connections if each.transport] if server else []
        await self._runner.cleanup()
        for each in open_:
            each.abort()  # a client that keeps its connections never says farewell in TLS
        await asyncio.sleep(0)

    async def _token(self, request: web.Request) -> web.Response:
        said = await request.post()
        scope = f"{self.url}/.default"
        proof = said.get("client_secret") or said.get("client_assertion")
        asked = (said.get("client_id"), proof, said.get("scope"))
        if self.refused or asked != (CLIENT, SECRET, scope):
            error = {"error": "invalid_client", "error_description": "AADSTS7000222: it is expired"}
            return web.json_response(error, status=401)
        found = {"access_token": self.give(), "expires_in": 3600, "token_type": "Bearer"}
        return web.json_response(found)

    async def _list(self, request: web.Request) -> web.Response:
        begun = time.perf_counter()
        if self.over or request.headers.get("Authorization") not in self._good:
            error = {"error": {"code": "AuthenticationFailed", "message": "no token that is good"}}
            return web.json_response(error, status=401)
        said = self.world.answer(self.url, request.path, request.query)
        self.spent += time.perf_counter() - begun
        headers = {"Content-Type": "application/json", **said.headers}
        return web.Response(status=said.status, body=said.body, headers=headers)
