"""`meshfed workload`: the verdict on its endpoints, as people then read it."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.cli.main import main

WEB = ServiceName("web", "shop")


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path}/meshfed.db"
    here = Workload("web-1", "rack", "rack", identity=Identity("web", "shop"))
    serves = Endpoint(WEB, 80, "10.0.0.9", 8080, here.id, "rack", "rack", identity=here.identity)
    known = Known(
        "rack",
        "rack",
        frozenset({Service(WEB, (Port(80),))}),
        frozenset({here}),
        frozenset({serves}),
    )

    async def fill() -> None:
        with closing(Catalog(made)) as catalog:
            await asyncio.to_thread(lambda: list(migrate(made)))
            await catalog.configure("mesh.local", permissive=True)
            await catalog.believe(known, kind="hosts", cause="")

    asyncio.run(fill())
    return made


def health(url: str) -> tuple[object, ...]:
    return query(url, "select health, health_reason from mesh_endpoints").rows[0]


def typed(*words: str, url: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["workload", *words, "--catalog", url])
    return ended.value.code


def test_it_is_drained_with_a_reason_disabled_and_enabled(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed("drain", "web-1", "--reason", "kernel update", url=url)
    assert capsys.readouterr().err == "web-1: drained\n"
    verdict, why = health(url)
    assert verdict == "draining"
    assert str(why).startswith("drained by ")
    assert str(why).endswith(": kernel update")
    typed("disable", "web-1", url=url)
    assert health(url)[0] == "unhealthy"
    typed("enable", "web-1", url=url)
    typed("enable", "web-1", url=url)
    assert capsys.readouterr().err == "web-1: disabled\nweb-1: enabled\nweb-1: unchanged\n"
    assert health(url) == ("healthy", "")


def test_who_is_not_there_is_a_finding(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("drain", "web-2", url=url) == 1
    assert capsys.readouterr().err == "no workload web-2: see `meshfed get workloads`\n"


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("a\nb", "one line, without control characters"),
        ("a\x1b[2Jb", "one line, without control characters"),
        ("a\u2028b", "one line, without control characters"),
        ("a" * 501, "501 characters: 500 at most"),
    ],
)
def test_a_reason_is_a_line_that_can_be_shown(
    url: str, capsys: pytest.CaptureFixture[str], reason: str, why: str
) -> None:
    assert typed("drain", "web-1", "--reason", reason, url=url) == 1
    assert capsys.readouterr().err == f"--reason: {why}\n"
    assert health(url) == ("healthy", "")
    assert typed("drain", "web-1", "--reason", "größer " * 71, url=url) == 0
