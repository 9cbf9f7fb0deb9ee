"""Broken files: each is refused in one line that says where and why, and harms nothing else."""

import io
from contextlib import closing
from pathlib import Path

import pytest

from meshfed.catalog.store import Catalog, migrate
from meshfed.federation.check import check
from meshfed.federation.specification.files import Held, Text, held

BROKEN = Path(__file__).parent / "broken"
HEALTHY = (BROKEN / "healthy.yaml").read_text()


def files(folder: str) -> list[object]:
    found = sorted((BROKEN / folder).glob("*.yaml"))
    return [pytest.param(path, id=path.stem.replace("-", " ")) for path in found]


def expected(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]


@pytest.mark.parametrize("path", [*files("config"), *files("policy")])
def test_a_broken_file_is_refused_in_one_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    checked = check([Path(path.name)], io.StringIO(), {})
    assert [str(rejected) for rejected in checked.rejected] == expected(path)


@pytest.mark.parametrize("path", files("policy"))
def test_a_broken_policy_leaves_the_healthy_ones_alone(path: Path):
    healthy, broken = Text("a.yaml", HEALTHY), Text("b.yaml", path.read_text())
    alone = held(Held(), [healthy]).specified("policy")
    together = held(Held(), [healthy, broken]).specified("policy")
    assert len(alone.policies) == 4
    assert together.policies == alone.policies
    assert len(together.rejected) == 1


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(HEALTHY.replace("weight: 90", "weight: -1"), id="a bad value"),
        pytest.param(HEALTHY.replace("TrafficSplit", "TraficSplit"), id="a misspelt kind"),
        pytest.param(HEALTHY.replace("pathRegex: /buy", "pathRegex: /("), id="a bad regex"),
        pytest.param(HEALTHY.replace("name: route,", "nam: route,"), id="no name"),
        pytest.param(HEALTHY[: HEALTHY.index("weight: 90") + 8], id="half a file"),
        pytest.param("", id="an emptied file"),
    ],
)
async def test_a_policy_that_breaks_stays_in_the_catalog_as_it_was(tmp_path: Path, broken: str):
    url = f"sqlite:///{tmp_path / 'mesh.db'}"
    migrate(url)
    with closing(Catalog(url)) as catalog:
        await catalog.configure("shop.example", permissive=False)
        await catalog.specify(held(Held(), [Text("a.yaml", HEALTHY)]).specified("policy"))
        before = await catalog.read()
        now = held(Held(), [Text("a.yaml", broken)]).specified("policy")
        await catalog.specify(now)
        assert now.rejected
        assert (await catalog.read()).policies == before.policies
