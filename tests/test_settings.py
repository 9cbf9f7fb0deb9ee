"""The configuration: its defaults, its documents, and what is refused."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from meshfed.federation.fields import CatalogUrl
from meshfed.federation.sections import FilesEntry, KubernetesEntry
from meshfed.federation.settings import Refused, Settings, schema

ROOT = Path(__file__).parent.parent

EXAMPLE = """\
mesh: {trust_domain: shop.example, permissive: false}
catalog: sqlite:///meshfed.db            # or postgresql+psycopg://…
providers:
  - {name: rack, type: hosts, path: hosts.yaml}
specification:
  - {type: files, path: policy/}
certificates: {issuer: local, workload_lifetime: 24h, proxy_lifetime: 8760h}
xds: {listen: "0.0.0.0:15128"}
admin: {listen: "127.0.0.1:15080"}
"""


def read(path: Path, text: str, **environ: str) -> Settings:
    path.write_text(text)
    return Settings.read(path, environ)


def refusals(path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(Refused) as refused:
        read(path, text, **environ)
    return [str(each) for each in refused.value.rejected]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "meshfed.yaml"


def test_the_example_says_what_it_says(file: Path):
    settings = read(file, EXAMPLE)
    assert settings.mesh.trust_domain == "shop.example"
    assert settings.catalog == f"sqlite:///{file.parent}/meshfed.db"
    [rack] = settings.providers
    assert (rack.name, rack.type, rack.options) == ("rack", "hosts", {"path": "hosts.yaml"})
    [files] = settings.specification
    assert isinstance(files, FilesEntry)
    assert (files.type, files.path, files.source) == ("files", Path("policy"), "files:policy")
    assert settings.certificates.workload_lifetime == timedelta(hours=24)
    assert settings.certificates.proxy_lifetime == timedelta(days=365)
    assert (settings.xds.listen.host, settings.xds.listen.port) == ("0.0.0.0", 15128)
    assert settings.admin.listen == "127.0.0.1:15080"
    assert (settings.base, settings.file) == (file.parent, file)


@pytest.mark.parametrize(
    ("written", "source"),
    [
        pytest.param("context: aks", "kubernetes:aks", id="a context"),
        pytest.param("kubeconfig: k.yaml, context: aks", "kubernetes:k.yaml:aks", id="of a file"),
        pytest.param("in_cluster: true", "kubernetes:in-cluster", id="its own"),
        pytest.param("secret: mesh/aks, in_cluster: true", "kubernetes:in-cluster:mesh/aks",
                     id="by way of its own"),
    ],
)  # fmt: skip
def test_a_cluster_with_policies_is_called_as_it_is_reached(file: Path, written: str, source: str):
    [entry] = read(file, f"specification: [{{type: kubernetes, {written}}}]").specification
    assert entry.source == source


def test_a_cluster_with_policies_has_the_keys_of_the_provider(file: Path):
    said = "kubeconfig: k.yaml, context: aks, namespaces: [shop]"
    [entry] = read(file, f"specification: [{{type: kubernetes, {said}}}]").specification
    assert isinstance(entry, KubernetesEntry)
    where, monitored = entry.reached(Path("/etc/meshfed"))
    assert (where.kubeconfig, where.context) == (Path("/etc/meshfed/k.yaml"), "aks")
    assert monitored.names == ("shop",)


@pytest.mark.parametrize("text", ["", "# all defaults\n", "{}"])
def test_every_key_has_a_default(file: Path, text: str):
    settings = read(file, text)
    assert settings.mesh.trust_domain == "mesh.local"
    assert not settings.mesh.permissive
    assert settings.providers == settings.specification == ()
    assert settings.certificates.seal.path == file.parent / "meshfed.key"


def test_no_file_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("meshfed.federation.settings.FOUND", (Path("meshfed.yaml"),))
    settings = Settings.read(None, {"MESHFED_MESH__TRUST_DOMAIN": "shop.example"})
    assert settings.mesh.trust_domain == "shop.example"
    assert (settings.base, settings.file) == (tmp_path, None)


def test_the_file_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("meshfed.yaml").write_text("mesh: {trust_domain: here.example}")
    assert Settings.read(None, {}).mesh.trust_domain == "here.example"


def test_what_the_environment_says_goes_before_the_file(file: Path):
    settings = read(
        file,
        EXAMPLE,
        MESHFED_MESH__PERMISSIVE="true",
        MESHFED_CATALOG="postgresql://mesh@db/mesh",
        MESHFED_PROVIDERS='[{"name": "lab", "type": "hosts", "path": "lab.csv"}]',
        MESHFED_XDS__LISTEN="",  # as if it were not there
    )
    assert settings.mesh.permissive
    assert settings.mesh.trust_domain == "shop.example"
    assert settings.catalog == "postgresql+psycopg://mesh@db/mesh"
    assert [provider.name for provider in settings.providers] == ["lab"]
    assert settings.xds.listen == "0.0.0.0:15128"


def test_the_process_environment_is_read_only_when_it_is_passed(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MESHFED_MESH__TRUST_DOMAIN", "elsewhere.example")
    assert read(file, EXAMPLE).mesh.trust_domain == "shop.example"


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        pytest.param(
            "MESHFED_MESH__TRUST_DOMAIN",
            "A_B",
            "MESHFED_MESH__TRUST_DOMAIN: mesh.trust_domain: 'A_B' is not a trust domain: lower-case"
            " letters, digits, dots, dashes and underscores, as in shop.example",
            id="a wrong value is the variable's",
        ),
        pytest.param(
            "MESHFED_MESH__TRUST_DOMIAN",
            "x",
            "MESHFED_MESH__TRUST_DOMIAN: mesh.trust_domian: unknown; did you mean trust_domain?",
            id="a misspelt key",
        ),
        pytest.param(
            "MESHFED_MEHS__PERMISSIVE",
            "true",
            "MESHFED_MEHS__PERMISSIVE: mehs: unknown; did you mean mesh?",
            id="a misspelt section",
        ),
        pytest.param(
            "MESHFED_CATALOGUE",
            "sqlite:///x.db",
            "MESHFED_CATALOGUE: catalogue: unknown; did you mean catalog?",
            id="a misspelt name",
        ),
        pytest.param(
            "MESHFED_PROVIDERS",
            "rack",
            "MESHFED_PROVIDERS: providers: must be JSON",
            id="a list that is not JSON",
        ),
        pytest.param(
            "MESHFED_PROVIDERS",
            '[{"name": "rack"}]',
            "MESHFED_PROVIDERS: providers[0].type: required",
            id="a wrong value within JSON",
        ),
    ],
)
def test_a_mistake_in_a_variable_is_named_by_it(file: Path, variable: str, value: str, line: str):
    assert refusals(file, "", **{variable: value}) == [line]


def test_what_kubernetes_puts_into_the_environment_is_left_alone(file: Path):
    links = {
        "MESHFED_SERVICE_HOST": "10.0.0.1",
        "MESHFED_SERVICE_PORT_XDS": "15128",
        "MESHFED_PORT": "tcp://10.0.0.1:15128",
        "MESHFED_PORT_15128_TCP_ADDR": "10.0.0.1",
    }
    assert read(file, "", **links).xds.listen == "0.0.0.0:15128"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("admin: {listen: true}", "listen: true is not host:port, such as 127.0.0.1:15128"),
        ("admin: {listen: }", "listen: null is not host:port, such as 127.0.0.1:15128"),
        ("history: {retain: .inf}", "retain: .inf is not a duration: write 30d"),
        ("history: {retain: -.inf}", "retain: -.inf is not a duration: write 30d"),
        ("federation: {minimum_healthy: .nan}", "minimum_healthy: .nan is not a share: write 70%"),
        ("federation: {minimum_healthy: 2026-11-30}", "the date 2026-11-30 is not a share: write"),
        ("federation: {weights: {azure: .inf}}", "weights.azure: must be a whole number"),
        ("join: {refusals: .inf}", "refusals: must be a whole number"),
        ("join: {refusals: .nan}", "refusals: must be a whole number"),
        ("join: {refusals: true}", "refusals: true is not a whole number"),
        ("injection: {exclude: {inbound_ports: [true]}}", "[0]: true is not a whole number"),
    ],
)
def test_a_value_of_another_kind_is_said_as_it_stands_with_what_is_wanted(
    file: Path, text: str, why: str
):
    [said] = refusals(file, text)
    assert said.startswith(f"{file}:1: {text.partition(':')[0]}.")
    assert why in said


def test_a_number_in_a_variable_is_one(file: Path):
    assert read(file, "", MESHFED_JOIN__REFUSALS="30").join.refusals == 30


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(file: Path):
    text = "xds: {listen: nowhere}\ncatlog: x\nmesh:\n  permissive: perhaps\n"
    assert refusals(file, text) == [
        f"{file}:1: xds.listen: 'nowhere' is not host:port, such as 127.0.0.1:15128 or [::1]:15128",
        f"{file}:2: catlog: unknown; did you mean catalog?",
        f"{file}:4: mesh.permissive: must be true or false",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("- mesh", "{file}:1: must be a mapping, `key: value`", id="a list"),
        pytest.param("base: /", "{file}:1: base: unknown; known: {known}", id="our own words"),
        pytest.param(
            "_env_file: x", "{file}:1: _env_file: unknown; known: {known}", id="pydantic's"
        ),
    ],
)
def test_what_is_no_configuration(file: Path, text: str, line: str):
    known = (
        "mesh, catalog, providers, specification, federation, history, certificates, xds, join,"
        " admin, health, injection"
    )
    assert refusals(file, text) == [line.format(file=file, known=known)]


def test_a_file_that_is_named_must_be_there(tmp_path: Path):
    with pytest.raises(Refused, match="cannot be read: No such file or directory"):
        Settings.read(tmp_path / "nowhere.yaml", {})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:geheim@db/mesh",
        "postgresql://me:ge@heim@db/mesh",
        "postgresql://db/mesh?user=me&password=geheim",
    ],
)
def test_a_password_is_not_shown(file: Path, url: str):
    settings = read(file, f"catalog: {url}\n", MESHFED_KEY="geheim")
    assert "heim" not in repr(settings) + str(settings)
    assert "heim" not in repr(CatalogUrl(url))
    assert CatalogUrl(url).shown == repr(CatalogUrl(url))[1:-1]
    assert settings.certificates.seal.variable == "geheim"


def test_a_refused_url_does_not_show_its_password(file: Path):
    assert "geheim" not in "".join(refusals(file, "catalog: mysql://me:geheim@db/mesh"))


@pytest.mark.parametrize(
    "domain", ["Shop.example", "shop example", ".example", "a..b", "a" * 115, "shop.example/x"]
)
def test_what_is_no_trust_domain(file: Path, domain: str):
    [line] = refusals(file, f"mesh: {{trust_domain: '{domain}'}}")
    assert line.startswith(f"{file}:1: mesh.trust_domain: ")


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param("240.0.0.0/16", ": must be a list", id="one, bare"),
        pytest.param("[240.0.0.1/16]", "[0]: '240.0.0.1/16' is not a range of addresses such as"
                     " 240.240.0.0/16 (240.0.0.1/16 has host bits set)", id="an address of it"),
        pytest.param("[7]", "[0]: must be text: put it in quotes", id="a number"),
        pytest.param("[240.0.0.0/31]", "[0]: '240.0.0.0/31' has no address for a service",
                     id="no room"),
        pytest.param("[127.0.0.0/8]", "[0]: '127.0.0.0/8': what is said to such addresses does not"
                     " come to a sidecar", id="loopback"),
        pytest.param("['::/64']", "[0]: '::/64': what is said to such addresses does not come to a"
                     " sidecar", id="a range that holds it"),
        pytest.param("[240.0.0.0/16, 241.0.0.0/16]", ": at most one range of IPv4 and one of IPv6",
                     id="two of a family"),
    ],
)  # fmt: skip
def test_what_is_no_range_of_virtual_ips(file: Path, written: str, why: str):
    told = refusals(file, f"mesh: {{virtual_ranges: {written}}}")
    assert told == [f"{file}:1: mesh.virtual_ranges{why}"]


def test_the_shipped_schema_is_the_one_of_the_code():
    shipped = (ROOT / "federation" / "settings.schema.json").read_text()
    assert shipped == schema(), (
        "write it again: .venv/bin/python -c 'from meshfed.federation.settings import schema;"
        ' print(schema(), end="")\' > federation/settings.schema.json'
    )


def keys(model: type[BaseModel], at: str = "") -> list[tuple[str, object]]:
    """Every key that a file may have, with its default."""
    found: list[tuple[str, object]] = []
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        inner = field.default_factory
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += keys(inner, f"{at}{name}.")
        else:
            found.append((f"{at}{name}", field.default))
    return found


@pytest.mark.parametrize(("key", "default"), keys(Settings), ids=[key for key, _ in keys(Settings)])
def test_the_page_about_configuration_has_every_key_and_its_default(key: str, default: object):
    page = (ROOT / "docs" / "configuration.md").read_text()
    rows = dict(
        [cell.strip().strip("`") for cell in line.split("|")[1:3]]
        for line in page.splitlines()
        if line.startswith("| `")
    )
    assert rows[key] == said(default)


def said(default: object) -> str:
    if isinstance(default, timedelta):
        units = {"h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}
        unit = next(unit for unit, length in units.items() if not default % length)
        return f"{default // units[unit]}{unit}"
    if default is None:
        return ""
    return json.dumps(default) if isinstance(default, bool | tuple) else str(default)
