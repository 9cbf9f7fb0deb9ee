"""What `meshfed agent` becomes: `python -m meshfed.federation.agent DIR IMDS LEVEL`."""

import sys
from pathlib import Path

from meshfed.federation.admin.logs import configure
from meshfed.federation.agent.run import CannotStart, run


def main(folder: str, imds: str, level: str) -> None:
    configure()
    try:
        run(Path(folder), imds, level)
    except CannotStart as why:
        sys.exit(f"meshfed: {why}")


if __name__ == "__main__":
    main(*sys.argv[1:])
