"""The first of meshfed that runs: Ctrl-C is heeded quietly while the rest is still being loaded."""

import sys


def main() -> None:
    try:
        from meshfed.federation.cli.main import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
