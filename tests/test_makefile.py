"""`make help` names what CONTRIBUTING.md says there is to make."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_make_help_names_every_command_of_contributing() -> None:
    # Where `make test` runs this, a make inside it would say so.
    command = ["make", "--no-print-directory", "help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    named = {line.split()[0] for line in told.stdout.splitlines()}
    said = re.findall(r"^make (\w+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert {*said, "clean"} == named
