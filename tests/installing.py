"""Commands that install, on a cluster, and all that is there before and after them."""

from collections.abc import Callable

import pytest
from helm import REAL, engine
from kube.cluster import Cluster
from kube.given import thing

from meshfed.demo.kube.kinds import BUILT_IN
from meshfed.federation.cli.main import main
from meshfed.federation.install import release
from meshfed.federation.install.chart import RELEASE, Object

Run = Callable[..., tuple[int, list[str]]]
DERIVED = {"endpoints", "leases", "events"}  # which the server writes itself
HOOK = thing("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", RELEASE)


@pytest.fixture
def run(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    if not REAL:
        monkeypatch.setattr(release, "helm", engine)

    def run(*arguments: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), (said.out + said.err).splitlines()

    return run


ITSELF = "/api/v1/namespaces/default/services/kubernetes"  # the API server makes it when it likes


def everything(cluster: Cluster) -> dict[str, Object]:
    """Each object by its path, but for its revision.

    A real API server writes a volume claim that is applied again as it was: the apply would take
    its finalizer away, and admission puts it back.
    """
    found = {}
    for kind in BUILT_IN:
        if kind.plural in DERIVED:
            continue
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        for each in cluster.request("GET", f"{root}/{kind.plural}")["items"]:
            each |= {"apiVersion": kind.api_version, "kind": kind.name}
            del each["metadata"]["resourceVersion"]
            found[cluster.path(each)] = each
    found.pop(ITSELF, None)
    return found
