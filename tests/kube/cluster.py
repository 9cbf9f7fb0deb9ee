"""A cluster as tests see it: an address, papers, kubectl, and objects in and out."""

import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import until

from meshfed.demo.kube.faults import Faults
from meshfed.demo.kube.kinds import BUILT_IN
from meshfed.demo.kube.kubeconfig import data
from meshfed.demo.kube.kubeconfig import kubeconfig as written
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.papers import Authority, Paper
from meshfed.demo.kube.server import Server

PATIENCE = 10.0  # seconds for an answer


class Answered(Exception):
    """A Status that says no."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(f"{code}: {status.get('message', status)}")
        self.code = code
        self.status = status


class Refused(Exception):
    """What kubectl says when it ends with an error."""


@dataclass
class Cluster:
    """Either the tests' own server or a real one; `server` is there for what only ours can do."""

    name: str
    host: str
    token: str
    authority: Path
    certificate: Paper
    kubeconfig: Path
    own: Server | None = None
    plurals: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)

    @property
    def server(self) -> Server:
        if self.own is None:
            pytest.skip("only the tests' own API server can be broken at will")
        return self.own

    @property
    def faults(self) -> Faults:
        return self.server.faults

    def rotate(self) -> None:
        """Another token, in the kubeconfig too; the old one is refused from now on."""
        self.token = self.server.rotate()
        self.kubeconfig.write_text(json.dumps(kubeconfig(self)))

    @property
    def shown(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> Object:
        """Raises Answered."""
        answer = self.client.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content} | self.shown,
        )
        if answer.is_error:
            raise Answered(answer.status_code, _status(answer))
        said: Object = answer.json()
        return said

    @cached_property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def tls_with(self, paper: Paper) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(paper.certificate, paper.key)
        return context

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.host, verify=self.tls, timeout=PATIENCE)

    def seen_by(self, token: str) -> "Cluster":
        """The same cluster for who shows another token, or none."""
        other = replace(self, token=token)
        other.client = self.client
        return other

    @contextmanager
    def watch(
        self, path: str, *, within: float = PATIENCE, **query: object
    ) -> Iterator[Iterator[Object]]:
        """What a watch is told, as it is told it. Raises Answered."""
        asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": 20} | query
        with self.client.stream(
            "GET",
            path,
            params={name: str(value) for name, value in asked.items()},
            headers=self.shown,
            timeout=within,
        ) as answer:
            if answer.is_error:
                answer.read()
                raise Answered(answer.status_code, _status(answer))
            yield map(json.loads, answer.iter_lines())

    def path(self, thing: Object, *, named: bool = True) -> str:
        """Where an object is, or where its like are created."""
        version, kind = thing["apiVersion"], thing["kind"]
        plural, namespaced = self._plural(version, kind)
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        home = f"/namespaces/{thing['metadata']['namespace']}" if namespaced else ""
        return f"{root}{home}/{plural}" + (f"/{thing['metadata']['name']}" if named else "")

    def _plural(self, version: str, kind: str) -> tuple[str, bool]:
        if not self.plurals:
            for each in BUILT_IN:
                self.plurals[each.api_version, each.name] = each.plural, each.namespaced
        if (version, kind) not in self.plurals:
            for one in self.request("GET", f"/apis/{version}")["resources"]:
                if "/" not in one["name"]:
                    self.plurals[version, one["kind"]] = one["name"], one["namespaced"]
        return self.plurals[version, kind]

    def create(self, thing: Object) -> Object:
        return self.request("POST", self.path(thing, named=False), thing)

    def get(self, thing: Object) -> Object:
        return self.request("GET", self.path(thing))

    def put(self, thing: Object) -> Object:
        """Creates it or makes it so, its status too."""
        if self.has(thing):
            current = {"resourceVersion": self.get(thing)["metadata"]["resourceVersion"]}
            whole = {**thing, "metadata": thing["metadata"] | current}
            written = self.request("PUT", self.path(thing), whole)
        else:
            written = self.create(thing)
        if "status" in thing and written.get("status") != thing["status"]:
            patch = {"status": thing["status"]}
            path = f"{self.path(thing)}/status"
            return self.request("PATCH", path, patch, "application/merge-patch+json")
        return written

    def patch(self, thing: Object, patch: Mapping[str, Any]) -> Object:
        return self.request("PATCH", self.path(thing), patch, "application/merge-patch+json")

    def delete(self, thing: Object) -> Object:
        """At once, as if whoever ends pods and empties namespaces had been there."""
        gone = self.request("DELETE", self.path(thing), {"gracePeriodSeconds": 0})
        if thing["kind"] == "Namespace":
            empty = {"metadata": {"name": thing["metadata"]["name"]}, "spec": {"finalizers": []}}
            return self.request("PUT", f"{self.path(thing)}/finalize", empty)
        return gone

    def established(self, crd: Object) -> None:
        """Waits until a CRD's kinds are served: told of, and their storage is there.

        A real API server begins with that when the CRD says that it is Established.
        """
        spec = crd["spec"]
        family, plural = f"/apis/{spec['group']}", spec["names"]["plural"]

        def served() -> bool:
            try:
                for version in spec["versions"]:
                    told = self.request("GET", f"{family}/{version['name']}")["resources"]
                    if plural not in [each["name"] for each in told]:
                        return False
                    self.request("GET", f"{family}/{version['name']}/{plural}?limit=1")
            except Answered as answer:
                if answer.code not in (404, 429):
                    raise
                return False
            return True

        until(served)

    def gone(self, thing: Object) -> None:
        """Waits until an object is not there, or not even its kind."""
        until(lambda: not self.has(thing))

    def until_allowed(self, path: str) -> Object:
        """Waits until RBAC has heard of what was just bound."""

        def allowed() -> bool:
            answer = self.client.get(path, headers=self.shown)
            return answer.status_code != 403

        until(allowed)
        return self.request("GET", path)

    def has(self, thing: Object) -> bool:
        try:
            self.get(thing)
        except Answered as answer:
            if answer.code != 404:
                raise
            return False
        return True

    def kubectl(self, *arguments: str, given: object = None) -> str:
        """What kubectl prints; `given` is its standard input. Raises Refused."""
        cache = self.kubeconfig.parent / "discovered"
        said = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, "--cache-dir", cache, *arguments],
            input=given if isinstance(given, str | None) else json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if said.returncode:
            raise Refused(said.stderr)
        return said.stdout


def refused(code: int, reason: str = "") -> pytest.RaisesExc[Answered]:
    """What a test expects to be answered with a no."""
    return pytest.raises(Answered, check=lambda e: e.code == code and reason in str(e))


def _status(answer: httpx.Response) -> Object:
    if answer.headers["Content-Type"] == "application/json":
        status: Object = answer.json()
        return status
    return {"message": answer.text}


def kubeconfig(cluster: Cluster) -> Object:
    """`<name>` has a token, `<name>-certificate` a certificate."""
    papers = {
        "client-certificate-data": data(cluster.certificate.certificate),
        "client-key-data": data(cluster.certificate.key),
    }
    users = {cluster.name: {"token": cluster.token}, f"{cluster.name}-certificate": papers}
    return written(cluster.name, cluster.host, cluster.authority, users)


@contextmanager
def running(folder: Path, name: str = "tests", *, bookmarks: float = 60.0) -> Iterator[Cluster]:
    """A cluster on the tests' own API server; any number of them at once."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority.make(folder)
    server = Server(authority.file, authority.serves(), bookmarks=bookmarks)
    server.start()
    paper = authority.client("tests", "system:masters")
    config = folder / "kubeconfig.yaml"
    cluster = Cluster(name, server.host, server.token, authority.file, paper, config, server)
    config.write_text(json.dumps(kubeconfig(cluster)))
    try:
        yield cluster
    finally:
        cluster.client.close()
        server.close()
    if server.api.bugs:
        raise ExceptionGroup("the API server failed", server.api.bugs)
