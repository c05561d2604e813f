"""The `seit` command, with one small module per command that parses, calls and prints."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    try:
        from seit.cli.app import run
    except KeyboardInterrupt:  # loading is slow enough to be interrupted
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run(sys.argv[1:] if arguments is None else arguments)
