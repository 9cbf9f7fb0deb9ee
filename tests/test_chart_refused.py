"""An installation that is refused, or cannot be: one line, and nothing is written."""

from pathlib import Path

import pytest
from installing import Run, everything, run
from kube.cluster import Cluster

from meshfed.federation.cli.main import main
from meshfed.federation.install import release

__all__ = ["run"]

HOSTS = "settings.providers[0].name=a,settings.providers[0].type=hosts"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["--set", "settings.mesh.permisive=true"],
            "settings.mesh: additional properties 'permisive' not allowed",
            id="a misspelt setting",
        ),
        pytest.param(
            ["--set", "injector.enabled=false", "--set", HOSTS],
            "meshfed.yaml:10: providers[0].path: missing: say which file lists the hosts",
            id="a file that is not among the values",
        ),
        pytest.param(["--set", "replicas"], 'key "replicas" has no value', id="no value"),
        pytest.param(["-f", "none.yaml"], "none.yaml", id="no file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    cluster: Cluster, run: Run, arguments: list[str], line: str
) -> None:
    before = everything(cluster)
    code, said = run("install", *arguments)
    assert (code, len(said)) == (1, 1)
    assert line in said[0]
    assert everything(cluster) == before


def test_what_is_there_is_not_installed_again_and_what_is_not_is_not_upgraded(
    cluster: Cluster, run: Run
) -> None:
    assert run("upgrade") == (1, ["meshfed: meshfed is not installed there: meshfed install"])
    run("install")
    again = "meshfed: meshfed is installed there already: meshfed upgrade"
    assert run("install") == (1, [again])


def test_without_helm_it_is_said_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    for command in ("install", "upgrade"):
        with pytest.raises(SystemExit) as ended:
            main([command])
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith("there is no `helm` here")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        pytest.param("echo installed", "helm printed no release", id="no JSON"),
        pytest.param("echo '[]'", "helm printed no release", id="other JSON"),
        pytest.param("exec /bin/sleep 60", "helm did not end within 0.2 s", id="silence"),
    ],
)
def test_a_helm_that_is_none_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    script: str,
    line: str,
) -> None:
    helm = tmp_path / "helm"
    nothing = '[ "$1" = get ] && echo "Error: release: not found" >&2 && exit 1'
    helm.write_text(f"#!/bin/sh\n{nothing}\n{script}\n")
    helm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(release, "PATIENCE", 0.2)
    with pytest.raises(SystemExit) as ended:
        main(["install"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1


def test_a_cluster_that_refuses_or_is_away_is_one_line(cluster: Cluster, run: Run) -> None:
    cluster.server.faults.fail(1, 403)
    assert run("install")[0] == 1
    cluster.server.stop()
    for command in ("install", "upgrade", "uninstall"):
        code, said = run(command)
        assert (code, len(said)) == (1, 1)
