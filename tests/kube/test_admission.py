"""Webhooks that change what is created: who is asked, how, and what a silent one costs."""

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from kube.cluster import Cluster, refused
from kube.given import labelled, namespace, pod, service, slice_, thing
from meshfed.demo.kube.admission import selects
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.papers import Authority

HOST = "hook.ops.svc"
LABEL = [{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]


class Hook:
    """A webhook in a thread of its own, as the API server's loop is in one too."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.authority = Authority.make(folder)
        self.asked: list[Object] = []
        self.answer: Callable[[Object], object] = patching(LABEL)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)

    async def _start(self) -> int:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        paper = self.authority.serves(HOST)
        tls.load_cert_chain(paper.certificate, paper.key)
        application = web.Application()
        application.router.add_post("/mutate", self._hear)
        application.on_response_prepare.append(self._last)
        self.runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.05)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=tls).start()
        return int(self.runner.addresses[0][1])

    async def _hear(self, request: web.Request) -> web.Response:
        said = await request.json()
        self.asked.append(said["request"])
        response = {"uid": said["request"]["uid"], "allowed": True}
        given = self.answer(said["request"])
        if given is None:
            await asyncio.sleep(30)
        return web.json_response({**said, "request": None, "response": {**response, **given}})

    async def _last(self, _: web.Request, response: web.StreamResponse) -> None:
        """An API server keeps connections for the next pod; here nobody would close them."""
        response.force_close()

    async def _end(self) -> None:
        server = self.runner.server
        while server and server.connections:  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.01)
        await self.runner.cleanup()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def configuration(self, **more: object) -> Object:
        rule = {
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["CREATE"],
        }  # fmt: skip
        trust = base64.b64encode(self.authority.file.read_bytes()).decode()
        url = f"https://127.0.0.1:{self.port}/mutate"
        hook = {
            "name": "pods.tests.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "rules": [rule],
            "clientConfig": {"url": url, "caBundle": trust},
            **more,
        }
        kind = "MutatingWebhookConfiguration"
        return thing("admissionregistration.k8s.io/v1", kind, "tests", webhooks=[hook])


def patching(operations: list[Object], **more: object) -> Callable[[Object], object]:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda _: {"patchType": "JSONPatch", "patch": patch, **more}


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    one = Hook(tmp_path / "hook")
    yield one
    one.close()


def test_a_pod_is_created_as_the_webhook_wants_it(cluster: Cluster, hook: Hook) -> None:
    cluster.create(hook.configuration())
    made = cluster.create(pod("a"))
    assert made["metadata"]["labels"] == {"seen": "yes"}
    assert cluster.get(pod("a"))["metadata"]["labels"] == {"seen": "yes"}
    (asked,) = hook.asked
    assert (asked["operation"], asked["namespace"], asked["dryRun"]) == ("CREATE", "default", False)
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert asked["object"]["spec"]["restartPolicy"] == "Always", "defaults come first"
    assert "uid" not in asked["object"]["metadata"], "it is not made yet"


def test_a_dry_run_asks_and_makes_nothing(cluster: Cluster, hook: Hook) -> None:
    cluster.create(hook.configuration())
    made = cluster.request("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod("a"))
    assert made["metadata"]["labels"] == {"seen": "yes"}
    assert hook.asked[0]["dryRun"]
    assert not cluster.has(pod("a"))


def test_only_what_rules_and_selectors_name_is_asked_about(cluster: Cluster, hook: Hook) -> None:
    within = {"matchLabels": {"mesh": "yes"}}
    without = {"matchExpressions": [{"key": "quiet", "operator": "DoesNotExist"}]}
    cluster.create(hook.configuration(namespaceSelector=within, objectSelector=without))
    cluster.create(pod("outside"))
    cluster.create(labelled(namespace("shop"), mesh="yes"))
    cluster.create(service("a", 80, home="shop"))
    cluster.create(labelled(pod("quiet", "shop"), quiet="yes"))
    assert hook.asked == []
    cluster.create(pod("loud", "shop"))
    assert [each["name"] for each in hook.asked] == ["loud"]


def by_service(hook: Hook, port: int = 443) -> Object:
    asked = {"service": {"name": "hook", "namespace": "ops", "path": "/mutate", "port": port}}
    trust = hook.configuration()["webhooks"][0]["clientConfig"]["caBundle"]
    return hook.configuration(clientConfig={**asked, "caBundle": trust})


def test_a_service_behind_which_nobody_is_fails(cluster: Cluster, hook: Hook) -> None:
    cluster.create(namespace("ops"))
    cluster.create(by_service(hook))
    failed = 'failed calling webhook "pods.tests.example": failed to call webhook: '
    post = f'{failed}Post "https://hook.ops.svc:443/mutate?timeout=10s": '
    with refused(500, f'{post}service "hook" not found'):
        cluster.create(pod("a"))
    cluster.create(service("hook", 443, home="ops"))
    with refused(500, f'{post}no endpoints available for service "hook"'):
        cluster.create(pod("a"))
    cluster.put(by_service(hook, 444))
    with refused(500, 'no service port 444 found for service "hook"'):
        cluster.create(pod("a"))


def test_a_service_is_found_by_its_endpoints_and_known_by_its_name(
    cluster: Cluster, hook: Hook
) -> None:
    cluster.create(namespace("ops"))
    cluster.create(service("hook", 443, home="ops"))
    cluster.create(by_service(hook))
    ports = [{"name": "p443", "port": hook.port}]
    cluster.server.plant(slice_("hook-1", "127.0.0.1", home="ops", of="hook", ports=ports))
    assert cluster.create(pod("a"))["metadata"]["labels"] == {"seen": "yes"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        pytest.param(
            {"clientConfig": {"url": "https://127.0.0.1:1/"}},
            'Post "https://127.0.0.1:1/?timeout=10s": dial tcp 127.0.0.1:1: connect: '
            "connection refused",
            id="away",
        ),
        pytest.param(
            {"clientConfig": {"caBundle": ""}},
            "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            id="trust",
        ),
        pytest.param(
            {"clientConfig": {"caBundle": "bm9uZQ=="}},
            "could not get REST client: unable to load root certificates: "
            "unable to parse bytes as PEM block",
            id="no PEM",
        ),
        pytest.param({"timeoutSeconds": 1}, "context deadline exceeded", id="silent"),
        pytest.param(
            {"clientConfig": {"path": "/other"}},
            "failed to call webhook: the server could not find the requested resource",
            id="path",
        ),
    ],
)
def test_without_an_answer_nothing_is_made_unless_that_is_meant(
    cluster: Cluster, hook: Hook, more: Object, why: str
) -> None:
    told = hook.configuration()["webhooks"][0]["clientConfig"]
    said = more.get("clientConfig", {})
    url = told["url"].replace("/mutate", said.get("path", "/mutate"))
    client = {"url": said.get("url", url), "caBundle": said.get("caBundle", told["caBundle"])}
    hook.answer = lambda _: None
    shape = hook.configuration(**{**more, "clientConfig": client})
    cluster.create(shape)
    with refused(500, why):
        cluster.create(pod("a"))
    shape["webhooks"][0]["failurePolicy"] = "Ignore"
    cluster.put(shape)
    assert "labels" not in cluster.create(pod("a"))["metadata"]


def test_a_webhook_may_refuse_and_warn(cluster: Cluster, hook: Hook) -> None:
    cluster.create(hook.configuration())
    status = {"code": 422, "message": "not like this", "reason": "Invalid"}
    hook.answer = lambda _: {"allowed": False, "status": status}
    with refused(422, 'admission webhook "pods.tests.example" denied the request: not like this'):
        cluster.create(pod("a"))
    hook.answer = patching(LABEL, warnings=['a "quoted" word'])
    answer = cluster.client.post(
        "/api/v1/namespaces/default/pods", json=pod("a"), headers=cluster.shown
    )
    assert answer.headers["Warning"] == '299 - "a \\"quoted\\" word"'


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ({"uid": "another"}, "received invalid webhook response: expected response.uid"),
        ({"patchType": "Other"}, 'unsupported patch type "Other"'),
        ({"patchType": None}, "webhook returned response.patch but not response.patchType"),
        ({"patch": ""}, "webhook returned response.patchType but not response.patch"),
        ({"patch": "ew=="}, "received undecodable patch in webhook response"),
    ],
)
def test_what_is_no_answer_counts_as_none(
    cluster: Cluster, hook: Hook, response: Object, why: str
) -> None:
    cluster.create(hook.configuration())
    hook.answer = patching(LABEL, **response)
    with refused(500, why):
        cluster.create(pod("a"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"name": "pods"}, "three segments"),
        ({"sideEffects": "Some"}, "sideEffects"),
        ({"admissionReviewVersions": []}, "admissionReviewVersions"),
        ({"timeoutSeconds": 31}, "between 1 and 30"),
        ({"clientConfig": {}}, "exactly one of url or service"),
        ({"clientConfig": {"url": "http://hook.example"}}, "only allowed URL scheme"),
    ],
)
def test_a_configuration_that_could_not_work_is_refused(
    cluster: Cluster, hook: Hook, more: Object, why: str
) -> None:
    with refused(422, why):
        cluster.create(hook.configuration(**more))


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ({"operator": "In", "values": ["a"]}, {"a"}),
        ({"operator": "NotIn", "values": ["a"]}, {"b", ""}),
        ({"operator": "Exists"}, {"a", "b"}),
        ({"operator": "DoesNotExist"}, {""}),
    ],
)
def test_expressions_select_by_one_label(expression: Object, chosen: set[str]) -> None:
    selector = {"matchExpressions": [{"key": "k", **expression}]}
    found = {value for value in ("a", "b", "") if selects(selector, {"k": value} if value else {})}
    assert found == chosen
