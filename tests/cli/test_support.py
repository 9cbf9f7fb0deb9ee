"""A support bundle is written whole, or not at all."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]  # how it ended: code, out, err, lines


def test_a_disk_that_is_full_is_one_line_and_leaves_no_half_bundle(
    meshfed: Run, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        ended = meshfed("support", "bundle", "x.tgz", "--catalog", "sqlite:///none.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ended.code, ended.err) == (1, "x.tgz: File too large\n")
    assert not (tmp_path / "x.tgz").exists()
