"""The `seit` command: one small module a command that parses, calls and prints."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    try:
        from seit.cli.app import run
    except KeyboardInterrupt:  # loading takes long enough to be interrupted
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run(sys.argv[1:] if arguments is None else arguments)
