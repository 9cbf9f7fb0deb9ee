"""What answers at a cluster's address and is no Kubernetes API is told, in the same words."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.access import Kubeconfig, Line, brief
from meshfed.providers.kubernetes.kubeconfig import lacking
from meshfed.providers.kubernetes.messages import Unreachable
from meshfed.providers.kubernetes.options import Where
from meshfed.providers.kubernetes.reflect import Kind, Pace, Reflector

ASKED = URL("https://mesh.example/api?watch=1&timeoutSeconds=251")


@dataclass
class Page:
    """200, and the same words to every question."""

    body: bytes
    status: int = 200

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    @property
    def content(self) -> "Page":
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self.body:
            yield self.body

    async def read(self) -> bytes:
        return self.body

    @asynccontextmanager
    async def get(self, path: str, query: Mapping[str, str]) -> AsyncIterator["Page"]:
        yield self


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"json": true}', id="other JSON"),
        pytest.param(b'{"json": true}\n', id="a line of it"),
        pytest.param(b'{"kind": "Status", "code": 200}', id="a Status"),
        pytest.param(b"<html>\n<body>It works!</body>\n</html>\n", id="a page"),
        pytest.param(b'{"type": "ADDED", "object": {"metadata": {"na', id="half an object"),
    ],
)
async def test_whatever_else_is_answered_is_trouble(body: bytes) -> None:
    troubled = asyncio.Event()

    def stood() -> None:
        if made.trouble:
            troubled.set()

    async def rest(_: float) -> None:
        await asyncio.sleep(0)

    pace = Pace(grace=0.0, rest=rest)
    kind = Kind("/api/v1/services", objects.Service, objects.key)
    made = Reflector(Page(body), kind, lambda _: None, stood, pace)
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(5):
        await troubled.wait()
    assert made.lists == 0
    running.cancel()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (aiohttp.InvalidURL("nonsense/api?timeoutSeconds=251"), "nonsense/api"),
        (
            aiohttp.ClientResponseError(
                aiohttp.RequestInfo(ASKED, "GET", {}, ASKED),
                (),
                status=400,
                message="Expected HTTP/:\n  SSH-2.0",
            ),
            "400, message='Expected HTTP/: SSH-2.0', url='https://mesh.example/api'",
        ),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_reason_is_one_line_without_what_changes_at_each_attempt(
    error: Exception, told: str
) -> None:
    assert brief(error).replace("\\n", "") == told


KUBECONFIG = """\
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://192.0.2.1"}}]
users: [{name: u, user: {token: secret}}]
"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("current", "currant", "context: missing: FILE has no current-context"),
        ("-context: a", "-context: b", "context: 'b' is none of FILE; known are a"),
        ("name: a,", "nam: a,", "FILE:2: contexts[0].name: missing: it cannot be left out"),
        ("[{name: a", "{{name: a", "FILE:2: not YAML: did not find expected ',' or '}'"),
        (
            "cluster: c,",
            "cluster: d,",
            "FILE:2: contexts[0].context.cluster: 'd' is none of its clusters; known are c",
        ),
        (
            "users:",
            "others:",
            "FILE:2: contexts[0].context.user: 'u' is none of its users; there are none",
        ),
        (
            "https://",
            "",
            "FILE:3: clusters[0].cluster.server: '192.0.2.1' is no URL: it begins with https://",
        ),
        (
            "{server",
            "{certificate-authority: /ca, server",
            "FILE:3: clusters[0].cluster.certificate-authority: /ca: No such file or directory",
        ),
        (
            "{server",
            "{certificate-authority-data: aGVsbG8=, server",
            "FILE:3: clusters[0].cluster.certificate-authority-data: no PEM in base64",
        ),
        (
            "{server",
            "{certificate-authority-data: null, server",
            "FILE:3: clusters[0].cluster.certificate-authority-data: null: take the key away",
        ),
        (
            "{server",
            "{tls-server-name: 3, server",
            "FILE:3: clusters[0].cluster.tls-server-name: 3 is no text",
        ),
        (
            "{server",
            "{proxy-url: [a], server",
            "FILE:3: clusters[0].cluster.proxy-url: ['a'] is no text",
        ),
        (
            "token: secret",
            "auth-provider: {name: gcp}",
            "FILE: GoogleAuth via gcloud is supported! Values for cmd-path, cmd-args are required.",
        ),
    ],
)
async def test_what_is_wrong_in_a_kubeconfig_is_said_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG.replace(old, new, 1))
    with pytest.raises(Unreachable) as refused:
        await Kubeconfig(file, "").client("")
    assert str(refused.value) == why.replace("FILE", str(file))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="as it is"),
        pytest.param("certificate-authority-data: '', ", id="an empty CA is none"),
    ],
)
async def test_a_kubeconfig_without_a_mistake_is_taken(tmp_path: Path, more: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG.replace("{server", f"{{{more}server"))
    assert lacking(Where("", file)) == ""
    client = await Kubeconfig(file, "").client("")
    await client.close()
    assert client.configuration.host == "https://192.0.2.1"


async def test_a_name_that_no_dns_takes_is_a_cluster_that_is_away(tmp_path: Path) -> None:
    there = line_of(tmp_path, KUBECONFIG.replace("192.0.2.1", "a..b"))
    with pytest.raises(Unreachable, match="label empty or too long"):
        async with there.get("/api", {}):
            pass
    await there.close()


async def test_a_mistake_of_ours_in_a_request_is_no_cluster_that_is_away(tmp_path: Path) -> None:
    there = line_of(tmp_path, KUBECONFIG)
    with pytest.raises(AttributeError, match="object"):
        async with there.patch("/api", {"labels": object()}):
            pass
    await there.close()


def line_of(path: Path, kubeconfig: str) -> Line:
    file = path / "kubeconfig"
    file.write_text(kubeconfig)
    return Line(Kubeconfig(file, ""), Pace())


@pytest.mark.parametrize("text", ["", "[]", "{}", "clusters: 3", "contexts: [{name: a}]"])
async def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(Exception, match=str(file)) as refused:
        await Kubeconfig(file, "").client(text)
    said: Any = refused.value
    assert "\n" not in str(said)
    assert "NoneType" not in str(said)
