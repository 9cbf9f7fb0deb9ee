"""What Azure announces: which of it ends this machine, and what the agent makes of it."""

from collections.abc import Iterator
from pathlib import Path

import imds
import pytest

from meshfed.federation.agent.events import (
    AZURE,
    SETTLE,
    WHO,
    Watching,
    azure,
    ending,
    events,
    moment,
)
from meshfed.federation.join.imds import Silent

NAME = "store_7"


class Mesh:
    """Hears what an agent says, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.draining = ""

    def undrain(self, who: str) -> None:
        assert who == WHO
        self.draining = ""

    async def drained(self, who: str, why: str) -> bool:
        assert who == WHO
        if not self.away:
            self.draining = why
        return not self.away


class Scene:
    """An agent that looks when it is told to, at a time that a test says."""

    def __init__(self, service: imds.Service) -> None:
        self.service, self.mesh = service, Mesh()
        self.now, self.busy = 0.0, False
        self.watching = Watching(service.url, self.mesh, self._busy, lambda: self.now)

    async def _busy(self) -> bool:
        return self.busy

    async def looks(self, after: float = 0.0) -> None:
        self.now += after
        await self.watching._look()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with imds.serving(NAME) as service:
        yield Scene(service)
        assert service.refused == []


@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Reboot", "Redeploy"])
async def test_it_drains_and_approves_once_nothing_is_under_way(scene: Scene, kind: str) -> None:
    await scene.looks()
    assert scene.mesh.draining == ""
    scene.service.announce("e1", kind)
    await scene.looks()
    assert scene.mesh.draining == f"Azure announces {kind}, not before 2026-11-30T18:29:47Z"
    scene.busy = True
    await scene.looks(SETTLE)
    assert scene.service.approved == []
    scene.busy = False
    await scene.looks(1.0)
    await scene.looks(1.0)
    assert scene.service.approved == ["e1"]  # once
    assert scene.mesh.draining != ""


async def test_callers_have_their_time_to_hear_of_it(scene: Scene) -> None:
    scene.service.announce("e1", "Preempt")
    await scene.looks()
    await scene.looks(SETTLE - 0.1)
    assert scene.service.approved == []
    await scene.looks(0.1)
    assert scene.service.approved == ["e1"]


async def test_a_freeze_and_what_ends_others_are_no_reason(scene: Scene) -> None:
    scene.service.announce("e1", "Freeze")
    scene.service.announce("e2", "Reboot", "store_8")
    await scene.looks()
    await scene.looks(60.0)
    assert (scene.mesh.draining, scene.service.approved) == ("", [])


async def test_what_ends_others_too_is_drained_for_and_left_to_its_time(scene: Scene) -> None:
    scene.service.announce("e1", "Reboot", NAME.upper(), "store_8")
    await scene.looks()
    await scene.looks(60.0)
    assert scene.mesh.draining != ""
    assert scene.service.approved == []


async def test_what_is_called_off_lets_it_serve_again(scene: Scene) -> None:
    scene.service.announce("e1", "Redeploy")
    await scene.looks()
    scene.service.over()
    await scene.looks(1.0)
    assert scene.mesh.draining == ""


async def test_nothing_is_approved_that_the_mesh_did_not_hear_of(scene: Scene) -> None:
    scene.mesh.away = True
    scene.service.announce("e1", "Preempt")
    await scene.looks()
    await scene.looks(SETTLE)
    assert scene.service.approved == []
    scene.mesh.away = False
    await scene.looks(1.0)
    await scene.looks(SETTLE)
    assert scene.service.approved == ["e1"]


async def test_what_has_begun_without_a_warning_is_drained_for_all_the_same(scene: Scene) -> None:
    scene.service.announce("e1", "Reboot")
    scene.service.approve(["e1"])
    await scene.looks()
    await scene.looks(SETTLE)
    assert scene.mesh.draining == "Azure announces Reboot"
    assert scene.service.approved == ["e1"]  # by the platform


@pytest.mark.parametrize(
    "document",
    [{}, {"Events": "none"}, {"Events": [{}]}, {"Events": [7]}, {"Events": [{"EventId": 1}]}],
)
def test_what_is_no_document_is_no_reason_to_drain(document: dict[str, object]) -> None:
    with pytest.raises(Silent, match="no document of scheduled events"):
        events(document)


def test_names_of_machines_are_compared_whole() -> None:
    document = {
        "Events": [
            {
                "EventId": "e1",
                "EventType": "Reboot",
                "Resources": ["store_70"],
                "EventStatus": "Scheduled",
            }
        ]
    }
    assert ending(events(document), NAME) == ()


def test_a_time_is_of_utc_and_what_is_none_stands_as_it_was_written() -> None:
    assert moment("Mon, 19 Sep 2016 18:29:47 GMT") == "2016-09-19T18:29:47Z"
    assert moment("Mon, 19 Sep 2016 20:29:47 +0200") == "2016-09-19T18:29:47Z"
    assert moment("Mon, 19 Sep 2016 18:29:47 -0000") == "2016-09-19T18:29:47Z"
    assert moment("Fri, 31 Dec 9999 23:59:59 -1200") == "Fri, 31 Dec 9999 23:59:59 -1200"
    assert moment("soon") == "soon"
    assert moment("") == ""


def test_only_a_machine_of_azure_asks_without_being_told_to(tmp_path: Path) -> None:
    (tmp_path / "tag").write_text(f"{AZURE}\n")
    assert azure(tmp_path / "tag")
    (tmp_path / "tag").write_text("No Asset Tag\n")
    assert not azure(tmp_path / "tag")
    assert not azure(tmp_path / "absent")
