"""What there is for AKS: none of it can be run here, so it is parsed, and held against the code."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from charted import HOME, container, made, only, pod
from pycep import BicepParser

from meshfed.federation.cli.main import app
from meshfed.federation.fields import catalog_url
from meshfed.federation.install.chart import RELEASE, mistakes

ROOT = Path(__file__).parent.parent
AKS = ROOT / "deploy" / "aks"
BICEP = sorted(AKS.glob("*.bicep"))
PAGES = ("aks.md", "azure.md")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def parsed(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = BicepParser().parse(text=file.read_text())
    return read


@pytest.mark.parametrize("file", BICEP, ids=lambda file: file.stem)
def test_bicep_is_bicep_and_says_what_each_parameter_is(file: Path) -> None:
    """As far as its grammar goes: what Azure makes of it nobody can say here."""
    read = parsed(file)
    assert read["resources"]
    text = file.read_text()
    for name, said in read["parameters"].items():
        plain = said.get("default") is not None or said.get("decorators")
        assert plain or file.stem == "identity-of-pod", name
    for name in (*read["parameters"], *read.get("variables", {})):
        assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is used nowhere"


def test_the_module_is_given_what_it_takes() -> None:
    (module,) = parsed(AKS / "identity.bicep")["modules"].values()
    taken = parsed(AKS / "identity-of-pod.bicep")["parameters"]
    assert module["config"]["params"].keys() == taken.keys()


def test_the_identity_is_the_charts_account() -> None:
    account = only(made(), "ServiceAccount")["metadata"]
    assert pod(made())["spec"]["serviceAccountName"] == account["name"] == RELEASE
    said = parsed(AKS / "identity.bicep")["parameters"]["account"]["default"]
    assert said == f"{HOME}:{account['name']}"


def test_the_database_is_reached_as_a_catalog_with_its_certificate_verified() -> None:
    said = re.search(r"^output url string = '(.*)'$", (AKS / "postgres.bicep").read_text(), re.M)
    assert said
    url = said[1].replace("${identity}", "meshfed")
    url = url.replace("${postgres.properties.fullyQualifiedDomainName}", "a.postgres.example")
    assert catalog_url(url) == url
    assert "sslmode=verify-full" in url


def test_the_values_for_azure_are_a_configuration() -> None:
    values = yaml.safe_load((AKS / "values.yaml").read_text())
    values["azure"] = {"clientId": "client"}
    assert list(mistakes(made(values))) == []
    assert only(made(values), "Service", f"{RELEASE}-machines")


def test_the_image_runs_as_the_chart_runs_it() -> None:
    lines = dict(
        line.split(" ", 1)
        for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
        if line and not line.startswith(("#", " "))
    )
    context = pod(made())["spec"]["securityContext"]
    assert lines["USER"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert json.loads(lines["ENTRYPOINT"]) == ["meshfed"]
    assert [*json.loads(lines["CMD"])] == container(made())["args"][:1]


def commands(page: str) -> list[list[str]]:
    """What a page has people type, each without what it is piped to."""
    text = "\n".join(SHELL.findall((ROOT / "docs" / page).read_text())).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "meshfed":
            found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_commands(page: str) -> None:
    """Each with options that there are."""
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            assert words[0] in command.commands, words
            command = command.commands[words.pop(0)]
        with command.make_context(command.name, words):
            pass


def test_three_commands_lead_from_an_empty_cluster_to_a_meshed_namespace() -> None:
    first = SHELL.search((ROOT / "docs" / "aks.md").read_text())
    assert first
    typed = first[1].strip().splitlines()
    assert len(typed) <= 3
    assert typed[-1].startswith("meshfed namespace add")
