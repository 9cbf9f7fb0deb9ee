"""What `validate` finds in files that are right by themselves, and how it tells them apart."""

import io
from pathlib import Path
from typing import TextIO

import pytest

from meshfed.federation.check import Checked, Kind, check, kind
from meshfed.federation.specification.files import Text

HOSTS = """\
services:
  bookstore.shop: {ports: {http: 8080}, protocol: http}
  bookstore-v1.shop: {ports: {http: 8080}, protocol: http}
hosts:
  - {name: store-1, address: 127.0.1.11, service: bookstore-v1.shop, port: 8080,
     identity: bookstore-v1.shop}
  - {name: buyer, address: 127.0.1.12, identity: bookbuyer.shop}
"""
POLICY = """\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: buyers, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: bookstore-v1}
  sources: [{kind: ServiceAccount, name: bookbuyer}]
  rules: [{kind: HTTPRouteGroup, name: books}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: books, namespace: shop}
spec: {matches: [{name: buy}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: versions, namespace: shop}
spec: {service: bookstore, backends: [{service: bookstore-v1, weight: 1}]}
"""
CONFIGURATION = """\
providers:
  - {name: rack, type: hosts, path: hosts.yaml}
specification:
  - {type: files, path: policy}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "this-users"))
    (tmp_path / "policy").mkdir()
    (tmp_path / "meshfed.yaml").write_text(CONFIGURATION)
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    (tmp_path / "policy" / "all.yaml").write_text(POLICY)
    return tmp_path


def append(folder: Path, text: str) -> None:
    with (folder / "meshfed.yaml").open("a") as file:
        file.write(text)


def checked(*paths: str, stdin: str = "") -> Checked:
    return check([Path(path) for path in paths], io.StringIO(stdin), {})


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


READ = {
    ("meshfed.yaml", Kind.CONFIGURATION),
    ("hosts.yaml", Kind.HOSTS),
    ("policy/all.yaml", Kind.POLICY),
}


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(["meshfed.yaml"], id="a configuration, with what it names"),
        pytest.param(["."], id="a folder"),
        pytest.param(["meshfed.yaml", "hosts.yaml", "policy"], id="nothing twice"),
    ],
)
def test_what_is_right_is_right(folder: Path, paths: list[str]):
    found = checked(*paths)
    assert set(found.read) == READ
    assert len(found.read) == len(READ)
    assert (found.rejected, found.unresolved) == ((), ())


def test_what_a_policy_refers_to_may_be_in_a_cluster(folder: Path):
    edit(folder / "policy" / "all.yaml", "metadata: {name: books,", "metadata: {name: others,")
    assert [each.field for each in checked(".").unresolved] == ["shop/buyers"]
    append(folder, "  - {type: kubernetes, context: aks-weu}\n")
    found = checked(".")
    assert (found.rejected, found.unresolved) == ((), ())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param(POLICY, Kind.POLICY, id="SMI"),
        pytest.param(HOSTS, Kind.HOSTS, id="a host list"),
        pytest.param("mesh: {permissive: true}", Kind.CONFIGURATION, id="a configuration"),
        pytest.param(
            "name,address,service,port,identity\na,10.0.0.1,shop.shop,80,shop.shop\n",
            Kind.HOSTS,
            id="a table",
        ),
        pytest.param(
            '[{"targets": ["10.0.0.1:80"], "labels": {"service": "a.shop", "identity": "a.shop"}}]',
            Kind.HOSTS,
            id="Prometheus targets",
        ),
    ],
)
def test_stdin_is_taken_for_what_it_looks_like(text: str, kind: Kind):
    found = checked("-", stdin=text)
    assert found.read == (("stdin", kind),)
    assert found.rejected == ()


@pytest.mark.parametrize("above", ["", "# ours\n", "---\n", "%YAML 1.1\n# ours\n\n--- "])
@pytest.mark.parametrize("begun", ["hosts:\n  - {name: a, addr", "\n- {targets: [", "[{targets: ["])
def test_a_host_list_is_known_by_its_beginning(above: str, begun: str):
    """What follows is read by whoever checks it: here nobody could."""
    assert kind(Text("hosts.yaml", f"{above}\n{begun}\n")) is Kind.HOSTS


def test_of_a_list_that_cannot_be_read_nothing_is_said_to_be_missing(folder: Path):
    edit(folder / "hosts.yaml", "hosts:", "hosts: {")
    found = checked("meshfed.yaml")
    [why] = map(str, found.rejected)
    assert why.startswith("hosts.yaml:")
    assert "not YAML" in why
    assert found.unresolved == ()


def test_a_file_that_looks_like_nothing_is_refused():
    found = checked("-", stdin="colour: blue")
    [why] = map(str, found.rejected)
    assert why == "stdin:1: neither a configuration nor a host list nor SMI"


@pytest.mark.parametrize(
    "stdin",
    [
        pytest.param(io.StringIO("\udce9"), id="as a C locale reads it"),
        pytest.param(io.TextIOWrapper(io.BytesIO(b"\xe9"), "utf-8"), id="as any other does"),
    ],
)
def test_stdin_that_is_not_text_is_one_line(stdin: TextIO):
    (why,) = check([Path("-")], stdin, {}).rejected
    assert str(why) == "stdin: not UTF-8 text"


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        pytest.param(
            "name: bookbuyer}",
            "name: bookbyer}",
            "policy/all.yaml:1: shop/buyers: nobody is bookbyer.shop",
            id="a caller that nobody is",
        ),
        pytest.param(
            "name: books}",
            "name: boks}",
            "policy/all.yaml:1: shop/buyers: HTTPRouteGroup shop/boks does not exist:"
            " this rule grants nothing",
            id="a route that is not there",
        ),
        pytest.param(
            "{service: bookstore-v1, weight: 1}",
            "{service: bookstore-v1, weight: 1}, {service: bookstore-v9, weight: 1}",
            "policy/all.yaml:14: shop/versions: backend bookstore-v9.shop does not exist:"
            " it is left out",
            id="a backend that is not there",
        ),
    ],
)
def test_what_would_have_no_effect_is_said_but_is_no_mistake(
    folder: Path, before: str, after: str, line: str
):
    edit(folder / "policy" / "all.yaml", before, after)
    found = checked("meshfed.yaml")
    assert [str(each) for each in found.unresolved] == [line]
    assert found.rejected == ()


def test_policies_alone_are_not_asked_who_there_is(folder: Path):
    edit(folder / "policy" / "all.yaml", "name: bookbuyer}", "name: bookbyer}")
    assert checked("policy").unresolved == ()


def test_mistakes_in_all_files_are_found_at_once(folder: Path):
    edit(folder / "hosts.yaml", "port: 8080,", "port: 80800,")
    edit(folder / "policy" / "all.yaml", "weight: 1", "weight: -1")
    (folder / "broken.yaml").write_text("a: {b")
    places = [each.where.rpartition(":")[0] for each in checked(".").rejected]
    assert sorted(places) == ["broken.yaml", "hosts.yaml", "policy/all.yaml"]


@pytest.mark.parametrize("text", ["", "\n \n", "# to be written\n"])
def test_an_empty_file_is_a_mistake_where_it_is_named(folder: Path, text: str):
    (folder / "more.yaml").write_text(text)
    assert [*map(str, checked("hosts.yaml", "more.yaml").rejected)] == [
        "more.yaml: empty: there is nothing in it to check"
    ]
    assert [*map(str, checked("-", stdin=text).rejected)] == [
        "stdin: empty: there is nothing in it to check"
    ]
    assert checked(".").rejected == ()


def test_an_issuer_that_nobody_installed_is_a_mistake(folder: Path):
    append(folder, "certificates:\n  issuer: vualt\n")
    [why] = map(str, checked("meshfed.yaml").rejected)
    assert why == "meshfed.yaml:6: certificates.issuer: 'vualt' is none of local"


@pytest.mark.parametrize(
    ("key", "mode", "why"),
    [
        pytest.param("not a key\n", 0o600, "not 32 bytes in base64", id="no key"),
        pytest.param("A" * 43 + "=\n", 0o644, "others may read this key", id="open to others"),
    ],
)
def test_a_key_that_could_not_be_used_is_a_mistake(folder: Path, key: str, mode: int, why: str):
    append(folder, "certificates: {key_file: mesh.key}\n")
    assert checked("meshfed.yaml").rejected == ()  # it is made when it is needed
    (folder / "mesh.key").write_text(key)
    (folder / "mesh.key").chmod(mode)
    [said] = map(str, checked("meshfed.yaml").rejected)
    assert said.startswith(f"meshfed.yaml:5: certificates.key_file: {folder}/mesh.key: {why}")


def test_a_file_that_is_not_there_is_a_mistake(folder: Path):
    [why] = map(str, checked("nowhere.yaml").rejected)
    assert why == "nowhere.yaml: No such file or directory"


def test_a_virtual_ip_that_the_mesh_may_give_to_another_is_refused(folder: Path) -> None:
    said = "{ports: {http: 8080}, protocol: http, vip: 240.240.0.1}"
    hosts = HOSTS.replace("{ports: {http: 8080}, protocol: http}", said, 1)
    (folder / "hosts.yaml").write_text(hosts)
    (why,) = map(str, checked("meshfed.yaml", "hosts.yaml").rejected)
    where = "hosts.yaml:2: services.bookstore.shop.vip"
    assert why.startswith(f"{where}: 240.240.0.1 is of mesh.virtual_ranges, which may be another")
    append(folder, "mesh: {virtual_ranges: [240.241.0.0/16, 'fd00:240::/64']}\n")
    assert checked("meshfed.yaml").rejected == ()


KUBECONFIG = """\
apiVersion: v1
kind: Config
contexts: [{name: aks-weu, context: {cluster: weu}}, {name: aks-neu, context: {cluster: neu}}]
clusters: [{name: weu, cluster: {server: "https://weu"}}, {name: neu, cluster: {server: neu}}]
"""


@pytest.mark.parametrize(
    ("said", "written", "why"),
    [
        pytest.param("context: aks-weu, kubeconfig: kube.yaml", KUBECONFIG, "", id="it is there"),
        pytest.param(
            "context: aks-wue, kubeconfig: kube.yaml",
            KUBECONFIG,
            "context: 'aks-wue' is none of kube.yaml; did you mean aks-weu?",
            id="misspelt",
        ),
        pytest.param(
            "kubeconfig: kube.yaml",
            KUBECONFIG,
            "context: missing: kube.yaml has no current-context",
            id="none is said, nor current",
        ),
        pytest.param(
            "kubeconfig: kube.yaml",
            KUBECONFIG + "current-context: aks-weu\n",
            "",
            id="the current one",
        ),
        pytest.param(
            "kubeconfig: kube.yaml",
            "[1]",
            "kubeconfig: kube.yaml:1: no kubeconfig: it has `contexts`, `clusters` and `users`",
            id="something else",
        ),
        pytest.param(
            "kubeconfig: kube.yaml, context: aks-neu",
            KUBECONFIG,
            "kubeconfig: kube.yaml:4: clusters[1].cluster.server: 'neu' is no URL: it begins with"
            " https://",
            id="a cluster that cannot be asked",
        ),
        pytest.param(
            "context: aks-wue",
            KUBECONFIG,
            "",
            id="of this user, who has none: it may be there where it is served",
        ),
        pytest.param("in_cluster: true", KUBECONFIG, "", id="none is used"),
    ],
)
def test_a_cluster_is_one_that_its_kubeconfig_knows(
    folder: Path, said: str, written: str, why: str
) -> None:
    (folder / "kube.yaml").write_text(written)
    entry = f"{{name: aks, type: kubernetes, {said}}}"
    (folder / "meshfed.yaml").write_text(f"providers:\n  - {entry}\n")
    told = [str(each) for each in check([Path("meshfed.yaml")], io.StringIO(), {}).rejected]
    assert told == ([f"meshfed.yaml:2: providers[0].{why}"] if why else [])


def test_a_context_is_looked_for_in_this_users_kubeconfig_where_there_is_one(folder: Path) -> None:
    (folder / "this-users").write_text(KUBECONFIG)
    append(folder, "  - {type: kubernetes, context: aks-wue}\n")
    [told] = check([Path("meshfed.yaml")], io.StringIO(), {}).rejected
    assert str(told) == (
        "meshfed.yaml:5: specification[1].context: 'aks-wue' is none of this-users;"
        " did you mean aks-weu?"
    )
