"""What every test may ask for."""

import os

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# Its handlers crash children that are started while other threads speak gRPC.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

pytest_plugins = ["arm.fixtures", "kube.fixtures"]

# The same examples every day; the soaks are where others are looked for.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

# What takes longest begins first: at the end one worker would wait for the other.
LONGEST = (
    "test_smi_truth",
    "test_behaviour",
    "test_chart_life",
    "test_demo",
    "test_faults",
    "test_demo_platforms",
    "test_prune",
    "test_many_clusters",
    "test_reboot",
    "test_bearers",
    "test_replicas",
    "test_demo_grpc",
    "test_agent",
    "test_mistakes",
    "test_specification_kubernetes",
    "test_bench",
    "test_town",
    "test_rates",
    "test_inject_live",
    "test_interception",
    "test_long_off",
    "test_partition",
)
LIVING_TOGETHER = ("tests/explain/",)  # folders whose files use one mesh


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden; read the diff"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


class Apart(LoadFileScheduling):
    """Two workers share one machine: who shares addresses or a running mesh stays on one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return next((folder for folder in LIVING_TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Apart:
    return Apart(config, log)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
