"""What commands print: results on stdout, everything else on stderr, progress on a terminal.

Names of classes, keys and files come from anybody: whatever is printed for a person goes through
`printable`, a line at a time.
"""

import io
import json
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from typing_extensions import override

from seit.errors import SeitError
from seit.printable import CONTROLS, printable

_UNWRITTEN = "the output could not be written"


def prepare_output() -> None:
    """Give closed streams somewhere to go, and let all take names that they cannot encode."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # else the next file that is opened takes its number
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _format_warning
    logging.lastResort = _Lines(logging.WARNING)


class _Lines(logging.Handler):
    """Prints what is logged where nobody else handles it."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {one_line(record.getMessage())}")


def _format_warning(message: object, *_: object, **__: object) -> str:
    return f"warning: {printable(one_line(message))}\n"


def finish_output() -> None:
    """Flush stdout.

    Raises:
        SystemExit: not all of it could be written (exit code 1).
    """
    is_told = sys.exception() is not None
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not is_told and not isinstance(error, BrokenPipeError):
            say(f"error: {_UNWRITTEN}: {error.strerror}")
        sys.exit(1)


def say(text: str) -> None:
    """Print a line for a person to stderr."""
    sys.stderr.write(printable(text) + "\n")


def warn(warnings: Sequence[str]) -> None:
    """Print warnings to stderr, one line each."""
    for text in warnings:
        say(f"warning: {one_line(text)}")


def one_line(text: object) -> str:
    """Fold a message into one line."""
    return " ".join(str(text).split())


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout; numbers that are not finite are null."""
    text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False, indent=2)
    lines = text.split("\n")  # between which no text is: those have their line ends escaped
    _write("".join(f"{CONTROLS.sub(_json_escape, line)}\n" for line in lines))


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_lines(lines: Sequence[str]) -> None:
    """Print a result for a person to stdout."""
    _write("".join(f"{printable(line)}\n" for line in lines))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SeitError(f"{_UNWRITTEN}: {error.strerror}") from error


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns to stdout."""
    width = max(len(name) for name, _ in rows)
    print_lines([f"{name:<{width}}  {value}" for name, value in rows])


def human_bytes(num_bytes: float) -> str:
    """A size with a decimal unit, such as ``1.28 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def human_seconds(seconds: float) -> str:
    """A duration such as ``1 h 02 min`` or ``34 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Bar(Protocol):
    """A progress bar; each call says how far things are."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """Show that ``done`` of ``total`` are done, and a note."""


def _no_bar(done: int, total: int, note: str) -> None:
    """The bar of a stream that is no terminal."""
    del done, total, note


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Bar]:
    """A bar with rate and remaining time on stderr when that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield _no_bar
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        @override
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.0f} {unit}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(description), total=None, note="")

        def update(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total, note=printable(note))

        yield update
