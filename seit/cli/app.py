"""The command line's frame: the list of commands, exit codes, and ``--group.field value``.

Exit codes: 0 fine, 1 failed or damaged, 2 wrong usage or input, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from seit import __version__
from seit.cli.output import one_line, say
from seit.errors import SeitError, UsageError

INTERRUPTED = 130

COMMANDS = {
    "quickstart": "The whole story on a small corpus: tokenize, train, compare with pixels.",
    "tokenize": "Tokenize a corpus into a store.",
    "tokenizer": "Make or inspect a tokenizer.",
    "info": "Say what a store holds.",
    "verify": "Check that every byte of a store is intact.",
    "train": "Train a classifier on the tokens of a store.",
    "eval": "Evaluate a finished run on a split of a store.",
    "predict": "Name the classes of raw image files.",
    "recipes": "List, show or copy recipes of runs.",
}

app = App(
    name="seit",
    version=__version__,
    help="Turn an image corpus into about 1 KB of tokens per instance, once, and train from them.",
    default_parameter=Parameter(negative=""),
)
for name, summary in COMMANDS.items():
    app.command(f"seit.cli.{name}_command:command", name=name, help=summary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    tokens = expand_settings(sys.argv[1:] if arguments is None else arguments)
    try:
        app(tokens, result_action="return_value", print_error=False, exit_on_error=False)
    except CycloptsError as error:
        hint = f"seit {tokens[0]} --help" if tokens[:1] and tokens[0] in COMMANDS else "seit --help"
        say(f"error: {one_line(error)} (`{hint}` says more)")
        sys.exit(UsageError.exit_code)
    except SeitError as error:
        say(f"error: {one_line(error)}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        hint = " with --resume" if tokens[:1] == ["train"] and "--resume" not in tokens else ""
        say(f"interrupted; finished work is kept: run the same command again{hint} to go on")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def expand_settings(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--group.field value`` to ``--set group.field=value``."""
    expanded: list[str] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if token == "--":  # noqa: S105
            return [*expanded, token, *rest]
        name, equals, value = token.partition("=")
        if not name.startswith("--") or "." not in name:
            expanded.append(token)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        expanded += ["--set", f"{name[2:]}={value}"]
    return expanded
