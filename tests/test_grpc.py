"""gRPC applications without a sidecar, both ends and beside Envoys, in a mesh that runs."""

import asyncio
import json
import os
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import live
from cryptography import x509

from meshfed.federation.bootstrap import bootstrap
from meshfed.federation.certificates import proxyfiles
from meshfed.federation.demo.control import until
from meshfed.federation.demo.folder import replace
from meshfed.federation.demo.processes import environment, tied_to
from meshfed.federation.settings import Settings
from meshfed.xds.grpc_bootstrap import REFRESH

PEER = Path(__file__).parent / "grpc_peer.py"

HOSTS = """
services:
  books.shop:    {ports: {grpc: {number: 8080, target: 50051, protocol: grpc}}}
  books-v1.shop: {ports: {grpc: {number: 8080, target: 50051, protocol: grpc}}}
  books-v2.shop: {ports: {grpc: {number: 8080, target: 50051, protocol: grpc}}}
  news.shop:     {plaintext: allow, ports: {grpc: {number: 9090, target: 50052, protocol: grpc}}}
hosts:
  - {name: reader, address: 127.0.13.1, identity: reader.shop, interception: grpc}
  - {name: thief, address: 127.0.13.2, identity: thief.shop, interception: grpc}
  - {name: old, address: 127.0.13.3, identity: reader.shop,
     bind: 127.0.13.3, application: 127.0.13.3}
  - {name: itself, address: 127.0.13.11, service: books-v1.shop, identity: books-v1.shop,
     interception: grpc, bind: 127.0.13.11}
  - {name: beside, address: 127.0.13.12, service: books-v2.shop, identity: books-v2.shop,
     bind: 127.0.13.12, application: 127.0.13.12}
  - {name: bare, address: 127.0.13.13, service: news.shop, identity: news.shop, interception: none}
"""

SHELVES = """
services:
  books.shop: {ports: {grpc: {number: 8080, target: 50051, protocol: grpc}}}
  vault.shop: {ports: {grpc: {number: 8080, target: 50051, protocol: grpc}}}
hosts:
  - {name: reader, address: 127.0.13.1, identity: reader.shop, interception: grpc}
  - {name: thief, address: 127.0.13.2, identity: thief.shop, interception: grpc}
  - {name: vault, address: 127.0.13.2, service: vault.shop, identity: vault.shop,
     interception: grpc}
""" + "".join(
    f"  - {{name: b{n}, address: 127.0.13.2{n}, service: books.shop, identity: books.shop,"
    f" interception: grpc, bind: 127.0.13.2{n}, weight: {weight}}}\n"
    for n, weight in ((1, 1), (2, 3))
)


def target(name: str, group: str) -> str:
    return f"""
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {name}, namespace: shop}}
spec:
  destination: {{kind: ServiceAccount, name: {name}, namespace: shop}}
  sources: [{{kind: ServiceAccount, name: reader, namespace: shop}}]
  rules: [{{kind: HTTPRouteGroup, name: {group}}}]
---"""


def split(first: int, second: int) -> str:
    return f"""
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {{name: books, namespace: shop}}
spec:
  service: books
  backends: [{{service: books-v1, weight: {first}}}, {{service: books-v2, weight: {second}}}]
"""


GROUPS = """
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: buying, namespace: shop}
spec: {matches: [{name: buy, pathRegex: "/shop[.]Books/Buy", methods: [POST]}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all, namespace: shop}
spec: {matches: [{name: all, pathRegex: ".*", methods: ["*"]}]}
"""
POLICY = {
    "targets.yaml": target("books-v1", "buying")
    + target("books-v2", "buying")
    + target("news", "all"),
    "groups.yaml": GROUPS,
    "split.yaml": split(1, 1),
}


class Peer:
    """A gRPC application in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def said(self) -> Mapping[str, Mapping[str, int]]:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            return json.loads(await self.process.stdout.readline())

    async def calls(self, target: str, **asked: object) -> tuple[Counter[str], Counter[str]]:
        """Answers by the first word of each, who gave it; and errors."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"target": target, **asked}).encode() + b"\n")
        said = await self.said()
        answers: Counter[str] = Counter()
        for answer, times in said["answers"].items():
            answers[answer.split()[0]] += times
        return answers, Counter(said["errors"])


class Peers:
    """The gRPC applications of one mesh."""

    def __init__(self, mesh: live.Mesh) -> None:
        self.mesh = mesh
        self.running: dict[str, Peer] = {}

    @property
    def settings(self) -> Settings:
        return Settings.read(self.mesh.config, environment(os.environ))

    async def start(self, name: str, *arguments: str, mesh: bool = True, text: str = "") -> Peer:
        """With a bootstrap of this text, or the one that is written for it."""
        more = {}
        if mesh:
            papers = self.mesh.folder / name
            await bootstrap(self.settings, name, papers, grpc=True)
            start = papers / proxyfiles.GRPC
            if text:
                start = self.mesh.folder / f"{name}.json"
                start.write_text(text)
            more[proxyfiles.VARIABLE] = str(start)
        with (self.mesh.folder / f"{name}.peer.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, PEER, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**environment(os.environ), **more},
                preexec_fn=tied_to(os.getpid()),
            )
        self.running[name] = Peer(process)
        return self.running[name]

    async def serve(self, name: str, where: str, how: str = "mesh", *, text: str = "") -> Peer:
        peer = await self.start(name, "serve", name, where, how, mesh=how == "mesh", text=text)
        await peer.said()
        return peer

    async def end(self, *names: str) -> None:
        for name in names or tuple(self.running):
            process = self.running.pop(name).process
            process.kill()
            await process.wait()


@asynccontextmanager
async def peers(
    folder: Path, *names: str, hosts: str = HOSTS, policy: Mapping[str, str] = POLICY
) -> AsyncIterator[Peers]:
    async with live.mesh(folder, hosts, policy, *names) as mesh:
        made = Peers(mesh)
        try:
            yield made
        finally:
            await made.end()


async def test_grpc_applications_call_each_other_and_those_behind_sidecars(tmp_path: Path) -> None:
    async with peers(tmp_path, "beside", "old") as there:
        await asyncio.gather(
            there.serve("itself", "127.0.13.11:50051"),
            there.serve("beside", "127.0.13.12:50051", "bare"),
            there.serve("bare", "127.0.13.13:50052", "bare"),
        )
        reader = await there.start("reader", "call")
        # One name, two backends: one enforces by itself, the other has an Envoy that does.
        answers, errors = await reader.calls("xds:///books.shop", times=60)
        assert not errors
        assert set(answers) == {"itself", "beside"}
        assert min(answers.values()) >= 10
        # What is not granted is refused by either.
        answers, errors = await reader.calls(
            "xds:///books.shop", method="/shop.Books/Steal", times=20
        )
        assert not answers
        assert {error.partition(":")[0] for error in errors} == {"PERMISSION_DENIED"}
        assert len(errors) == 2
        # In plaintext where the service allows it, to what has no mesh at all.
        answers, errors = await reader.calls("xds:///news.shop:9090", times=5)
        assert (answers, errors) == (Counter(bare=5), Counter())
        # An Envoy reaches the gRPC server at its own port, by mutual TLS.
        through = {"target": "127.0.13.3:15001", "authority": "books-v1.shop:8080"}
        answers, errors = await reader.calls(**through, times=5)
        assert (answers, errors) == (Counter(itself=5), Counter())
        # A split that moves is obeyed by the calls after its acknowledgement.
        text = split(0, 1)
        await there.mesh.change(lambda: replace(tmp_path / "policy" / "split.yaml", text))
        answers, errors = await reader.calls("xds:///books.shop", times=20)
        assert (answers, errors) == (Counter(beside=20), Counter())
        # What a policy takes away is refused at once, by the server that enforces itself too.
        lending = GROUPS.replace("Books/Buy", "Books/Lend")
        await there.mesh.change(lambda: replace(tmp_path / "policy" / "groups.yaml", lending))
        _, errors = await reader.calls("xds:///books-v1.shop", times=2)
        assert errors == Counter({"PERMISSION_DENIED: Unauthorized RPC rejected": 2})
        answers, errors = await reader.calls("xds:///books-v1.shop", method="/shop.Books/Lend")
        assert (answers, errors) == (Counter(itself=1), Counter())


async def test_weights_are_heeded_and_certificates_checked_and_renewed_without_a_restart(
    tmp_path: Path,
) -> None:
    policy = {"policy.yaml": target("books", "all") + target("vault", "all") + GROUPS}
    async with peers(tmp_path, hosts=SHELVES, policy=policy) as there:
        await bootstrap(there.settings, "b1", tmp_path / "b1")
        hasty = (tmp_path / "b1" / proxyfiles.GRPC).read_text().replace(REFRESH, "1s")
        await asyncio.gather(
            there.serve("b1", "127.0.13.21:50051", text=hasty),
            there.serve("b2", "127.0.13.22:50051"),
        )
        reader, thief = await there.start("reader", "call"), await there.start("thief", "call")
        answers, errors = await reader.calls("xds:///books.shop", times=400)
        assert not errors
        assert 260 <= answers["b2"] <= 340  # 3 of 4
        # Who shows no certificate is not let in where it knows the address.
        _, errors = await thief.calls("127.0.13.21:50051", seconds=0.5)
        assert [error.partition(":")[0] for error in errors] == ["UNAVAILABLE"]
        # Who stands at a server's address is not taken for it: the certificate is the thief's.
        await there.serve("imposter", "127.0.13.2:50051", str(tmp_path / "thief"))
        answers, errors = await reader.calls("xds:///vault.shop")
        assert not answers
        assert "SANs from certificate did not match" in str(errors)
        first = await asyncio.to_thread(shown, tmp_path / "reader")
        await bootstrap(there.settings, "b1", tmp_path / "b1")
        second = serial((tmp_path / "b1" / "certificate.pem").read_bytes())
        assert second != first

        async def renewed() -> bool:
            return await asyncio.to_thread(shown, tmp_path / "reader") == second

        await until("the renewed certificate", renewed)


def serial(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number


def shown(papers: Path) -> int:
    """The serial number of what the gRPC server shows to a caller with these papers."""
    context = ssl.create_default_context(cafile=str(papers / "bundle.pem"))
    context.check_hostname = False  # mesh certificates name identities, not hosts
    context.load_cert_chain(papers / "certificate.pem", papers / "key.pem")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.13.21", 50051), live.PATIENCE) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
