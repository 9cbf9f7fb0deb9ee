"""A mesh that machines may join, for tests: a real `serve`, and machines that ask it."""

import asyncio
import http.client
import json
import os
import shlex
import ssl
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import live

from meshfed.catalog.joins import Joins
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.demo.folder import replace as rewrite
from meshfed.federation.demo.processes import environment
from meshfed.federation.join.invite import invite
from meshfed.federation.join.machine import join
from meshfed.federation.join.papers import Papers, Server
from meshfed.federation.join.secret import Secret
from meshfed.federation.settings import Settings

T = TypeVar("T")

WEB = "web.live"


@dataclass
class Ground:
    """A mesh that machines may join, and where they are."""

    mesh: live.Mesh
    port: int
    folder: Path
    addresses: Iterator[str]  # each attacker comes from one of its own

    @property
    def settings(self) -> Settings:
        return Settings.read(self.mesh.config, environment(os.environ))

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return self.settings.catalog

    def token(self, uses: int = 1, identity: str = WEB, service: str = f"{WEB}:8080") -> str:
        """As it is printed."""
        made = in_a_loop(
            invite(self.settings, identity, [service], uses, timedelta(hours=1), "a test")
        )
        return shlex.split(made.command)[-1]

    @cached_property
    def standing(self) -> str:
        """A token with which anybody could join: who is refused uses none of it up."""
        return self.token(uses=100)

    def catalog(self, act: Callable[[Joins], Any]) -> Any:
        async def acted() -> Any:
            with closing(Catalog(self.url)) as catalog:
                return await act(Joins(catalog))

        return in_a_loop(acted())

    def deregister(self, name: str) -> None:
        async def gone() -> None:
            with closing(Catalog(self.url)) as catalog:
                await catalog.deregister(name, "a test")

        in_a_loop(gone())

    def joined(self, name: str, token: str | None = None) -> Papers:
        """A machine of this name, whose papers stand in a folder."""
        token = token or self.token()
        asked = {"token": token, "untrusted_name": name}
        server = self.server.believed_by(Secret.parse(token).pin)
        join(server, self.folder / name, asked, None, [next(self.addresses)])
        papers = Papers.read(self.folder / name)
        assert papers is not None
        return papers

    def asks(
        self, body: object, papers: Path | None = None, path: str = "/v1/join", at: str = ""
    ) -> tuple[int, str]:
        """Any request, of a machine that heeds no rule: the status, and what was said."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if papers:
            context.load_cert_chain(papers / "certificate.pem", papers / "key.pem")
        source = (at or next(self.addresses), 0)
        line = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, source_address=source, timeout=10
        )
        with closing(line):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            line.request("POST", path, raw, {"content-type": "application/json"})
            answer = line.getresponse()
            return answer.status, json.loads(answer.read()).get("detail", "")

    def told(self) -> list[tuple[str, str]]:
        """What history has of those that came: who, and what became of it."""
        asked = "select object, change from mesh_changes where what = 'join' order by at"
        return [
            (str(name), str(change)) for name, change in query(self.url, asked, rows=10000).rows
        ]


async def unheeded() -> None:
    """Nobody hears of a certificate that was renewed."""


def in_a_loop(act: Coroutine[Any, Any, T]) -> T:
    """Run it, whether or not a loop runs here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, act).result()


@contextmanager
def grounded(
    folder: Path,
    hosts: str,
    addresses: str,
    xds: Mapping[str, object] = MappingProxyType({"listen": "127.0.0.1"}),
    providers: Sequence[Mapping[str, object]] = (),
    before: Callable[[Ground], None] = lambda _: None,
    **settings: object,
) -> Iterator[Ground]:
    """Served. Machines have their addresses of this network, as `127.0.47`.

    `providers`: beside that of the hosts. `before`: what happened before it was started.
    """
    (port,) = free_ports(1)
    mesh = live.Mesh(folder, hosts, {})
    mesh.written["mesh"] = {"trust_domain": live.DOMAIN, "permissive": True}
    mesh.written["providers"] = [*mesh.written["providers"], *providers]
    port_of_xds = str(mesh.written["xds"]["listen"]).rpartition(":")[2]
    mesh.written["xds"] = {**xds, "listen": f"{xds['listen']}:{port_of_xds}"}
    mesh.written["join"] = {"listen": f"0.0.0.0:{port}", **settings}
    rewrite(mesh.config, json.dumps(mesh.written))
    made = Ground(mesh, port, folder, (f"{addresses}.{n}" for n in range(20, 250)))
    before(made)
    try:
        asyncio.run(mesh.serve())
        yield made
    finally:
        mesh.end()
