"""The demo without sidecars: one gRPC client, the machines of two providers, and a loss."""

import json
from pathlib import Path
from uuid import uuid4

from demos import demo, left_in, marked


def test_one_grpc_client_balances_over_hosts_of_two_providers(tmp_path: Path) -> None:
    mark = uuid4().hex
    with demo(mark, tmp_path, "--grpc", "--seconds", "1", "-o", "json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["providers"] == {"hosts": ["host-1", "host-2"], "azure": ["vm-1", "vm-2"]}
    assert min(told["answered"].values()) > 0
    assert told["failed"] == told["killed"]["failed_after_removal"] == 0
    after = told["killed"]["answered_after_removal"]
    assert after.pop("host-2") == 0
    assert min(after.values()) > 0
    assert min(told["denied"].values()) > 0
    assert (marked(mark), left_in(tmp_path)) == ([], [])


def test_its_providers_are_its_own(tmp_path: Path) -> None:
    with demo(uuid4().hex, tmp_path, "--grpc", "--platforms", "azure,hosts") as process:
        _, err = process.communicate()
    assert (process.returncode, err.count("leave --platforms out")) == (2, 1)
