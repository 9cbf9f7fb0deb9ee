"""The webhook as a part of the control plane, asked by an API server as a real one asks.

What is applied is deploy/inject/webhook.yaml, and the service that it names is the bound port.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from answering import COUNTED
from clusters import OURS, SOON, namespace, pod
from kube.cluster import Answered, Cluster, running
from kube.given import configmap, service, slice_
from publishing import DOMAIN
from typer.testing import CliRunner

from meshfed.demo.kube import discovery
from meshfed.demo.kube.objects import Object
from meshfed.federation.admin.app import bound
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.keypair import pem
from meshfed.federation.cli.main import app as command
from meshfed.federation.inject.app import Unasked
from meshfed.federation.inject.cluster import STANDS
from meshfed.federation.inject.cluster import Cluster as Known
from meshfed.federation.inject.decide import PROXY
from meshfed.federation.inject.examine import examined
from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.serve import Webhook
from meshfed.federation.settings import Refused, Settings
from meshfed.providers.kubernetes.access import line
from meshfed.providers.kubernetes.options import Where
from meshfed.providers.provider import Examined

MANIFEST = Path(__file__).parents[1] / "deploy" / "inject" / "webhook.yaml"
CONFIGURATION = yaml.safe_load(MANIFEST.read_text())
CONFIGURATION_PLURAL = "mutatingwebhookconfigurations"
HOUR = timedelta(hours=1)
PATIENCE = 10.0
INJECT = {"meshfed.io/inject": "enabled"}
MESHED = {**OURS, **INJECT}


def authority() -> LocalAuthority:
    return LocalAuthority(*root(DOMAIN, datetime.now(UTC)))


@dataclass
class Running:
    """A webhook that is served, and the cluster that asks it."""

    cluster: Cluster
    control: ControlPlane
    settings: Settings

    async def examined(self) -> Examined:
        """What `doctor` says of it."""
        [(name, found)] = [each async for each in examined(self.settings, self.control.roots_pem)]
        assert name == "aks"
        return found

    @property
    def bundles(self) -> list[str]:
        found = self.cluster.get(CONFIGURATION)["webhooks"]
        return [base64.b64decode(h["clientConfig"].get("caBundle", "")).decode() for h in found]

    async def trusted(self) -> None:
        wanted = [self.control.roots_pem] * len(CONFIGURATION["webhooks"])
        await until(lambda: self.bundles == wanted)

    async def create(self, thing: Object) -> Object:
        return await asyncio.to_thread(self.cluster.create, thing)

    async def injected(self, thing: Object) -> bool:
        spec = (await self.create(thing))["spec"]
        return PROXY in [each["name"] for each in spec.get("initContainers", ())]


async def until(so: Callable[[], bool]) -> None:
    """The API server's clients are other threads, which have no event for us."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(so):  # noqa: ASYNC110  # as it says
            await asyncio.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "cluster") as one:
        for name in ("meshfed", "plain"):
            one.put(namespace(name, {}))
        yield one


@pytest.fixture
async def webhook(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Running]:
    written = {
        "providers": [
            {"name": "aks", "type": "kubernetes", "kubeconfig": str(cluster.kubeconfig)}
            | {"context": cluster.name}
        ],
        "injection": {"listen": "127.0.0.1:0"},
    }
    (tmp_path / "meshfed.yaml").write_text(yaml.safe_dump(written))
    settings = Settings.read(tmp_path / "meshfed.yaml", {})
    control = await ControlPlane.open(authority(), DOMAIN, HOUR, hosts=settings.injection.hosts)
    listener = bound(settings.injection.listen, "injection.listen")
    ports = [{"name": "p9443", "port": listener.getsockname()[1]}]
    cluster.put(service("meshfed", 9443, home="meshfed"))
    cluster.server.plant(
        slice_("meshfed-1", "127.0.0.1", home="meshfed", of="meshfed", ports=ports)
    )
    cluster.create(CONFIGURATION)
    made = Webhook(settings, control)
    async with asyncio.TaskGroup() as tasks:
        parts = [tasks.create_task(each) for each in (made.run(listener, COUNTED), *made.duties())]
        one = Running(cluster, control, settings)
        await one.trusted()
        yield one
        for part in parts:
            part.cancel()
    listener.close()


async def test_the_pods_of_a_namespace_have_sidecars_from_add_to_remove(
    webhook: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(webhook.cluster.kubeconfig))

    async def run(verb: str) -> None:
        made = await asyncio.to_thread(CliRunner().invoke, command, ["namespace", verb, "shop"])
        assert made.exit_code == 0, made.output

    webhook.cluster.put(namespace(labels={}))
    assert not await webhook.injected(pod("before"))
    await run("add")
    assert await webhook.injected(pod("meshed"))
    await run("remove")
    assert not await webhook.injected(pod("after"))


async def test_a_bundle_that_was_overwritten_is_put_back(webhook: Running) -> None:
    webhook.cluster.put(namespace(labels=MESHED))
    for bundle in (None, base64.b64encode(authority_pem().encode()).decode()):
        changed = webhook.cluster.get(CONFIGURATION)
        for hook in changed["webhooks"]:
            hook["clientConfig"].pop("caBundle")
            hook["clientConfig"] |= {"caBundle": bundle} if bundle else {}
        webhook.cluster.put(changed)
        await webhook.trusted()
    assert await webhook.injected(pod("web"))


def authority_pem() -> str:
    return pem((root(DOMAIN, datetime.now(UTC))[0],))


async def test_what_is_wrong_with_the_configuration_is_said_once(
    webhook: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""

    def told(what: str) -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return what in said

    webhook.cluster.delete(CONFIGURATION)
    await until(lambda: told("there is no MutatingWebhookConfiguration meshfed"))
    webhook.cluster.faults.fail(1, 403, verb="patch", plural=CONFIGURATION_PLURAL)
    webhook.cluster.create(CONFIGURATION)
    await until(lambda: told("403: the tests say 403"))
    webhook.cluster.patch(CONFIGURATION, {"metadata": {"labels": {"looked": "at"}}})
    await webhook.trusted()
    assert said.count("webhook not trusted") == 2


async def test_another_authority_needs_no_restart(webhook: Running) -> None:
    webhook.cluster.put(namespace(labels=MESHED))
    assert await webhook.injected(pod("before"))
    old = webhook.control.roots_pem
    other = await ControlPlane.open(
        authority(), DOMAIN, HOUR, hosts=("meshfed.meshfed.svc", "localhost")
    )
    webhook.control.current, webhook.control.roots = other.current, other.roots
    assert webhook.control.roots_pem != old
    await webhook.trusted()

    def made() -> bool:
        """Its new certificate is served a moment later."""
        try:
            webhook.cluster.create(pod("after"))
        except Answered:
            return False
        return True

    await until(made)


@contextmanager
def untrusted(webhook: Running) -> Iterator[None]:
    """The caBundle is wrong, and stays so: whoever puts it right may not."""
    webhook.cluster.faults.fail(1000, 403, verb="patch", plural=CONFIGURATION_PLURAL)
    changed = webhook.cluster.get(CONFIGURATION)
    for hook in changed["webhooks"]:
        hook["clientConfig"]["caBundle"] = base64.b64encode(authority_pem().encode()).decode()
    webhook.cluster.put(changed)
    yield


@contextmanager
def nobody(webhook: Running) -> Iterator[None]:
    gone = slice_("meshfed-1", "127.0.0.1", home="meshfed", of="meshfed")
    webhook.cluster.server.uproot(gone)
    yield


@pytest.mark.parametrize("broken", [untrusted, nobody])
async def test_only_new_pods_of_meshed_namespaces_wait_for_it(
    webhook: Running, broken: Callable[[Running], Awaitable[None]]
) -> None:
    webhook.cluster.put(namespace(labels=MESHED))
    standing = await webhook.create(pod("standing"))
    with broken(webhook):
        found = await webhook.examined()
        assert "new pods in meshed namespaces wait" in found.what
        assert found.remedy
        with pytest.raises(Answered, match=r"failed calling webhook \"inject\.pods\.meshfed\.io\""):
            await webhook.create(pod("new"))
        assert not await webhook.injected(pod("new", namespace="plain"))
        assert not await webhook.injected(pod("new", namespace="meshfed"))
        assert not await webhook.injected(pod("new", namespace="kube-system"))
        without = pod("without")
        without["metadata"]["labels"] = {"meshfed.io/inject": "disabled"}
        assert not await webhook.injected(without)
        await webhook.create(configmap("settings", "shop"))
        webhook.cluster.patch(standing, {"metadata": {"labels": {"still": "changed"}}})
        webhook.cluster.delete(standing)


async def test_doctor_says_whether_it_is_there_and_answers(webhook: Running) -> None:
    assert (await webhook.examined()).what == "meshfed is there; no namespace asks for sidecars"
    webhook.cluster.put(namespace(labels=MESHED))
    found = await webhook.examined()
    assert (found.what, found.remedy) == ("answers: a pod in shop gets its sidecar", "")
    changed = webhook.cluster.get(CONFIGURATION)
    changed["webhooks"][0]["rules"][0]["resources"] = ["services"]
    webhook.cluster.put(changed)
    assert "gets no sidecar" in (await webhook.examined()).what
    webhook.cluster.delete(CONFIGURATION)
    found = await webhook.examined()
    assert found.what == "MutatingWebhookConfiguration meshfed is missing: no pod gets a sidecar"
    assert found.remedy == "kubectl apply -f deploy/inject/webhook.yaml"
    webhook.cluster.server.stop()
    assert "cannot be looked at" in (await webhook.examined()).what
    webhook.cluster.server.start()


@pytest.mark.parametrize(
    ("labels", "annotations", "expected"),
    [
        pytest.param(INJECT, {}, True, id="asked for"),
        pytest.param(OURS, {}, False, id="in the mesh, and no more"),
        pytest.param(OURS, INJECT, True, id="asked for by annotation"),
        pytest.param(
            {"openservicemesh.io/monitored-by": "osm"},
            {"openservicemesh.io/sidecar-injection": "enabled"},
            True,
            id="asked for in OSM's words",
        ),
        pytest.param({**OURS, "meshfed.io/inject": "disabled"}, {}, False, id="not asked for"),
        pytest.param({**MESHED, "openservicemesh.io/ignore": ""}, {}, False, id="ignored"),
    ],
)
async def test_a_namespace_says_whether(
    webhook: Running, labels: dict[str, str], annotations: dict[str, str], *, expected: bool
) -> None:
    home = namespace(labels=labels)
    home["metadata"]["annotations"] = annotations
    webhook.cluster.put(home)
    assert await webhook.injected(pod("web")) is expected


@pytest.mark.parametrize(
    ("major", "minor", "native"),
    [
        pytest.param("1", "33", True, id="new"),
        pytest.param("1", "32+", True, id="with kubelets of 1.29"),
        pytest.param("1", "31", False, id="perhaps with older kubelets"),
        pytest.param("2", "0", True, id="of times to come"),
    ],
)
async def test_the_clusters_version_says_what_its_kubelets_know(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, major: str, minor: str, *, native: bool
) -> None:
    said = {"major": major, "minor": minor}
    monkeypatch.setattr("meshfed.demo.kube.discovery.VERSION", discovery.VERSION | said)
    async with asking(cluster) as known:
        assert await known.native() is native


async def test_a_version_stands_while_it_cannot_be_read_again(cluster: Cluster) -> None:
    now = 0.0
    async with asking(cluster, lambda: now) as known:
        cluster.faults.fail(1, 500, plural="/version")
        with pytest.raises(Unasked, match="the cluster's version: 500"):
            await known.native()
        assert await known.native()
        cluster.faults.fail(1, 500, plural="/version")
        now = STANDS
        assert await known.native()
        assert cluster.faults.failing[-1].left == 0, "it was asked"


@asynccontextmanager
async def asking(
    cluster: Cluster, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Known]:
    api = line(Where(cluster.name, cluster.kubeconfig), SOON)
    try:
        yield Known(api, SOON, clock)
    finally:
        await api.close()


async def test_a_pod_that_cannot_be_right_is_refused_in_kubectls_words(webhook: Running) -> None:
    webhook.cluster.put(namespace(labels={**OURS, "meshfed.io/inject": "enbaled"}))
    with pytest.raises(Answered, match="'enbaled' is neither enabled nor disabled"):
        await webhook.create(pod("web"))


async def test_while_a_namespace_cannot_be_looked_at_nobody_guesses(webhook: Running) -> None:
    webhook.cluster.put(namespace(labels=OURS))
    webhook.cluster.faults.fail(1, 500, verb="get", plural="namespaces")
    with pytest.raises(Answered, match="currently unable to handle the request"):
        await webhook.create(pod("web"))
    assert not await webhook.injected(pod("web"))


@pytest.mark.parametrize(
    ("control_plane", "hosts", "home"),
    [
        ("meshfed.meshfed.svc:15130", ("meshfed.meshfed.svc",), "meshfed"),
        ("cp.ops.svc.cluster.local:1", ("cp.ops.svc.cluster.local", "cp.ops.svc"), "ops"),
        ("cp.ops.svcs:1", ("cp.ops.svcs",), ""),
        ("mesh.example:15130", ("mesh.example",), ""),
        ("[2001:db8::7]:15130", ("2001:db8::7",), ""),
    ],
)
def test_the_certificate_has_the_name_that_each_looks_for(
    control_plane: str, hosts: tuple[str, ...], home: str
) -> None:
    injection = Injection(control_plane=control_plane)
    assert (injection.hosts, injection.namespace) == (hosts, home)


async def test_a_webhook_that_no_cluster_would_ask_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text("mesh: {trust_domain: shop.example}\ninjection: {listen: '127.0.0.1:9443'}\n")
    control = await ControlPlane.open(authority(), DOMAIN, HOUR)
    with pytest.raises(Refused, match=r":2: injection\.listen: no cluster would ask"):
        Webhook(Settings.read(file, {}), control)
