"""Frame of the command line: the list of commands, exit codes, and ``--group.field value``.

Exit codes: 0 success, 1 failed or damaged, 2 wrong usage or input, 130 interrupted.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from seit import __version__
from seit.cli.output import finish_output, one_line, prepare_output, say, spoken_log
from seit.errors import SeitError, UsageError

INTERRUPTED = 130

COMMANDS = {
    "quickstart": "Tokenize a small corpus, train on it, and compare with pixels.",
    "tokenize": "Tokenize a corpus into a store.",
    "tokenizer": "Make or inspect a tokenizer.",
    "info": "Describe a store.",
    "verify": "Check that every byte of a store is intact, or restore it from a copy.",
    "view": "Look at a store, or at runs, on a local page in the browser.",
    "convert": "Copy a store, in another codec or container.",
    "merge": "Merge stores of one tokenizer into one.",
    "filter": "Write a new store with some samples of another.",
    "delete": "Delete samples from a store for good, in place.",
    "duplicates": "Find samples that are nearly the same in two splits.",
    "train": "Train a classifier on the tokens of a store.",
    "pretrain": "Pretrain an encoder on the tokens of a store, without labels.",
    "tune": "Fine-tune a few weights of a pretrained backbone, or compare methods.",
    "compress": "Make a finished classifier smaller: quantize, prune or distill it.",
    "sweep": "Search settings of a recipe: random draws and successive halving.",
    "continual": "Learn the classes of a store task by task.",
    "eval": "Evaluate a finished run on a split of a store.",
    "predict": "Predict the classes of raw images or clips.",
    "embed": "Write the features of a run's backbone for every sample of a split.",
    "neighbors": "Find nearest neighbors in a file of features.",
    "analyze": "Measure what the layers of a network hold.",
    "footprint": "Measure what a run, an ONNX file or a tokenizer takes: bytes, memory, times.",
    "runs": "List runs, or compare some of them.",
    "export": "Write a finished run as safetensors, ONNX and torch.export files with a card.",
    "frontier": "Compare tokens, JPEG, smaller pictures and subsets: accuracy against bytes.",
    "recipes": "List, show or copy recipes of runs.",
}

COMPLETION = {
    "--install-completion": "Complete commands and flags by TAB, from the next shell on.",
    "--show-completion": "Print the script that --install-completion installs.",
}
"""Flags of the program itself; see completion.py."""

GROUPS = ("analyze", "recipes", "runs", "tokenizer")
"""Commands with subcommands."""

WITH_SETTINGS = ("train", "pretrain", "tune", "compress", "sweep", "continual", "frontier")
"""Commands that take ``--group.field value``."""

RESUMING = ("quickstart", "tokenize", "delete", "frontier")
"""Commands that resume an interrupted run by themselves."""

RESUMED_BY_FLAG = (
    "analyze brain",
    "analyze cca",
    "analyze cka",
    "analyze probe",
    "train",
    "pretrain",
    "tune",
    "compress",
    "sweep",
    "continual",
    "tokenizer train",
    "tokenizer adapt",
)
"""Commands that resume an interrupted run with ``--resume``."""


def make_app(asked: str) -> App:
    """Return the command line: full help of the requested command, one line for the others."""
    app = App(
        name="seit",
        suppress_keyboard_interrupt=False,
        version=__version__,
        help="Turn an image or audio corpus into about 1 KB of tokens per instance, once, and "
        "train from them.",
        help_format="plaintext",  # a Markdown parser takes a third of a second to load
        default_parameter=Parameter(negative=""),
    )
    for name, summary in COMMANDS.items():
        settings = {} if name in GROUPS else {"help_format": "markdown"}  # groups set their own
        if name != asked:
            settings["help"] = summary
        app.command(f"seit.cli.{name}:command", name=name, **settings)
    for name, summary in COMPLETION.items():
        function = name.removeprefix("--").partition("-")[0]
        settings = {} if name == asked else {"help": summary}
        app.command(f"seit.cli.completion:{function}", name=name, **settings)
    return app


def run(arguments: Sequence[str]) -> None:
    """Run one command and exit with its code."""
    prepare_output()
    name = arguments[0] if arguments else ""
    tokens = expand_settings(arguments) if name in WITH_SETTINGS else list(arguments)
    try:
        with spoken_log():
            make_app(name)(
                tokens, result_action="return_value", print_error=False, exit_on_error=False
            )
    except CycloptsError as error:
        hint = f"seit {name} --help" if name in COMMANDS else "seit --help"
        say(f"error: {one_line(_explain(error, tokens))} (`{hint}` says more)")
        sys.exit(UsageError.exit_code)
    except SeitError as error:
        say(f"error: {one_line(error)}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say(f"interrupted{_advice(name, tokens)}")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(SeitError.exit_code)
    except MemoryError as error:
        say(f"error: there is too little memory ({one_line(error) or 'none is left'})")
        sys.exit(SeitError.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {one_line(where + (error.strerror or str(error)))}")
        sys.exit(SeitError.exit_code)
    finally:
        finish_output()


def _explain(error: CycloptsError, tokens: Sequence[str]) -> str:
    if not isinstance(error, UnusedCliTokensError) or not error.unused_tokens:
        return str(error)
    unused = error.unused_tokens
    is_setting = "--set" in tokens and all("=" in token for token in unused)
    remedy = "; each NAME=VALUE needs a --set of its own" if is_setting else ""
    return f"unexpected argument {' '.join(unused)!r}{remedy}"


def _advice(name: str, tokens: Sequence[str]) -> str:
    """Return how to resume after Ctrl-C."""
    command = " ".join(tokens[:2]) if name in ("analyze", "tokenizer") else name
    flags = {token.partition("=")[0] for token in tokens}
    if command not in RESUMING + RESUMED_BY_FLAG or (name == "analyze" and "--out" not in flags):
        return ""
    asks = command in RESUMED_BY_FLAG and "--resume" not in flags
    flag = " with --resume" if asks else ""
    return f"; finished work is kept: run the same command again{flag} to resume"


def expand_settings(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--group.field value`` to ``--set group.field=value``.

    ``--resume auto`` becomes ``--resume``, with the same meaning: resume if there is a run.
    """
    expanded: list[str] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if token == "--":  # noqa: S105
            return [*expanded, token, *rest]
        if token == "--resume" and rest[:1] == ["auto"]:  # noqa: S105
            rest.pop(0)
        name, equals, value = token.partition("=")
        if not name.startswith("--") or "." not in name:
            expanded.append(token)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        expanded += ["--set", f"{name[2:]}={value}"]
    return expanded
