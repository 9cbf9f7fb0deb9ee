"""Who may make networks with rules of iptables: root, where the tools are."""

import os
import shutil

import pytest

TOOLS = ("iptables-restore", "ip6tables-restore", "unshare", "ip")
ABSENT = [tool for tool in TOOLS if shutil.which(tool) is None]
real = pytest.mark.skipif(
    os.geteuid() != 0 or bool(ABSENT),
    reason=f"no {', '.join(ABSENT)}" if ABSENT else "network namespaces need root",
)
