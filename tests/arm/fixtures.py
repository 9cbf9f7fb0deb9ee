"""A mesh over the subscription of fleet.py, for whoever asks."""

from pathlib import Path
from shutil import copy

import pytest

from arm.fleet import fleet
from arm.meshed import Meshed
from meshfed.catalog import follow
from meshfed.catalog.store import migrate
from meshfed.federation import publish


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of which each test has a copy: to make one takes longer than most of them."""
    path = tmp_path_factory.mktemp("migrated") / "catalog.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def meshed(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meshed:
    copy(migrated, tmp_path)
    monkeypatch.setattr(follow, "REST", 3600.0)  # the kernel tells of writes
    monkeypatch.setattr(publish, "FLUSH", 60.0)
    return Meshed(fleet(), tmp_path)
