"""`meshfed proxy status` tells how a proxy stands that is connected now."""

import json
import time
from collections.abc import Callable

import pytest

from meshfed.catalog.model import Workload
from meshfed.catalog.reports import Receipt


@pytest.mark.parametrize("answered", ["synced", "behind"])
def test_a_rejection_of_a_stream_that_is_gone_is_none_of_a_proxy_that_came_back_well(
    meshfed, store: Workload, connect: Callable[..., None], answered: str
) -> None:
    then = time.time()
    connect(
        Receipt(store.id, "CDS", "v1", then, then),
        Receipt(store.id, "EDS", "v1", then, then),
        Receipt(store.id, "LDS", "v2", then, then, rejected="no such filter"),
        state="rejecting",
        reason="LDS: no such filter; CDS: no such cluster",
    )
    connect(
        Receipt(store.id, "CDS", "v2", then, then + 1, rejected="no such cluster"),
        state="rejecting",
        reason="LDS: no such filter; CDS: no such cluster",
    )
    (before,) = json.loads(meshfed("proxy", "status", "-o", "json").out)
    assert [before[kind] for kind in ("CDS", "EDS", "LDS")] == ["rejected", "synced", "rejected"]
    connect(state=answered)
    (row,) = json.loads(meshfed("proxy", "status", "-o", "json").out)
    assert row["state"] == answered
    assert [row[kind] for kind in ("CDS", "EDS", "LDS")] == ["synced", "synced", "-"]
    assert "no such" not in meshfed("proxy", "status", "store-1").out
