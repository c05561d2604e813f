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
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from typing_extensions import override

from seit.errors import SeitError
from seit.numbers import human_bytes as human_bytes
from seit.printable import CONTROLS, printable
from seit.progress import Pace, human_rate, human_seconds

LINE_SECONDS = 10.0
"""Time between progress lines where stderr is not a terminal."""
LINES = 20
"""In long jobs a line waits for this part, 1/LINES, of the time so far."""
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
    logging.lastResort = _Speaker(logging.WARNING)  # of other packages


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
    print_lines(columns(rows, left=2))


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lay rows out in columns, the first ``left`` of them aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class Bar(Protocol):
    """A progress bar; each call says how far things are."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """Show that ``done`` of ``total`` are done, and a note."""


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Bar]:
    """Show how far a job is, with rate and remaining time, on stderr.

    A bar on a terminal, below what is logged; elsewhere a line now and then.
    """
    with (
        _terminal_bar(description, unit)
        if sys.stderr.isatty()
        else nullcontext(_Lines(description, unit)) as bar
    ):
        yield bar


class _Lines:
    """Progress without a terminal: a line every ten seconds, in long jobs less often."""

    def __init__(self, description: str, unit: str) -> None:
        self._description = description
        self._unit = unit
        self._pace = Pace(time.monotonic)
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Note how far things are, and print a line if it is time."""
        self._pace.update(done, total)
        now = time.monotonic()
        if now - self._last < max(LINE_SECONDS, (now - self._started) / LINES):
            return
        self._last = now
        parts = [f"{done:,} of {total:,}", _speed(self._pace, self._unit), note]
        say(f"{self._description}: {', '.join(filter(None, parts))}")


def _speed(pace: Pace, unit: str) -> str:
    """Rate and remaining time, as far as they are known."""
    if pace.rate is None or pace.remaining is None:
        return ""
    rate = f"{human_rate(pace.rate, unit)}, " if unit else ""
    return f"{rate}{human_seconds(pace.remaining)} left"


@contextmanager
def _terminal_bar(description: str, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False),
    )
    pace = Pace()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(description), total=None, speed="", note="")

        def update(done: int, total: int, note: str) -> None:
            pace.update(done, total)
            progress.update(
                task, completed=done, total=total, speed=_speed(pace, unit), note=printable(note)
            )

        yield update


class _Speaker(logging.Handler):
    """Prints what the package logs, above a bar where there is one."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        say(f"warning: {text}" if record.levelno >= logging.WARNING else text)


@contextmanager
def spoken_log() -> Iterator[None]:
    """Print to stderr what the package logs: what begins, how far it is, and warnings.

    Of several processes that `torchrun` started, the main one alone says what is no warning.
    """
    logger, handler = logging.getLogger("seit"), _Speaker()
    before = logger.level
    is_main = os.environ.get("RANK", "0") == "0"
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
