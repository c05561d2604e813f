"""Output of commands: results on stdout, everything else on stderr, progress on a terminal.

Names of classes, keys and files are untrusted: everything printed for people passes through
`printable`, line by line.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

from seit.errors import SeitError
from seit.printable import CONTROLS, printable
from seit.processes import is_main_process
from seit.progress import Pace, human_rate, human_seconds

if TYPE_CHECKING:
    from seit.outcomes import Outcome

LINE_SECONDS = 10.0
"""Seconds between progress lines if stderr is not a terminal."""
LINES = 20
"""In long jobs, lines are at least 1/LINES of the elapsed time apart."""
_UNWRITTEN = "the output could not be written"


def prepare_output() -> None:
    """Replace closed streams, and let all streams accept names that they cannot encode."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # else the next file opened takes its number
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
        SystemExit: the output could not be written completely (exit code 1).
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
    """Print a line for people to stderr."""
    sys.stderr.write(printable(text) + "\n")


def warn(warnings: Sequence[str]) -> None:
    """Print warnings to stderr, one line each."""
    for text in warnings:
        say(f"warning: {one_line(text)}")


def warn_of_codec(asked: str | None, written: str | None) -> None:
    """Warn if a store was packed although the codec `context` was asked for."""
    if asked == "context" and written == "packed":
        warn(
            [
                "the store is packed: context takes up to 4,096 codes, and is only used where it "
                "makes the store smaller"
            ]
        )


def one_line(text: object) -> str:
    """Fold a message into one line."""
    return " ".join(str(text).split())


def print_result(result: "Outcome") -> None:
    """Print the result of a verb as one JSON object."""
    print_json(result.record())


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout; non-finite numbers become null."""
    text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False, indent=2)
    lines = text.split("\n")  # no text spans lines: their line ends are escaped
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
    """Print a result for people to stdout."""
    _write("".join(f"{printable(line)}\n" for line in lines))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()  # a pipe or a file gets it now, also if the command is not done
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SeitError(f"{_UNWRITTEN}: {error.strerror}") from error


def print_table(rows: Sequence[Sequence[str]], *, left: int = 2) -> None:
    """Print rows in columns to stdout, the first ``left`` left-aligned, others right-aligned."""
    print_lines(columns(rows, left=left))


def columns(rows: Sequence[Sequence[str]], *, left: int = 2) -> list[str]:
    """Lay rows out in columns, the first ``left`` left-aligned, others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class Bar(Protocol):
    """A progress bar, updated by each call."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """Show that ``done`` of ``total`` are done, and a note."""


@contextmanager
def counting_bar(description: str, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a job with a single kind of item; see `progress_bar`."""
    with progress_bar(description, unit) as bar:
        yield lambda done, total: bar(done, total, "")


@contextmanager
def stage_bar(description: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of a job with several stages; see `progress_bar`."""
    with progress_bar(description, "") as bar:
        yield lambda stage, done, total: bar(done, total, stage)


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Bar]:
    """Show progress, rate and remaining time on stderr.

    A bar on a terminal, below the log; elsewhere an occasional line.
    """
    with (
        _terminal_bar(description, unit)
        if sys.stderr.isatty()
        else nullcontext(_Lines(description, unit)) as bar
    ):
        yield bar


class _Lines:
    """Progress without a terminal: a line every ten seconds, less often in long jobs."""

    def __init__(self, description: str, unit: str) -> None:
        self._description = description
        self._unit = unit
        self._pace = Pace(time.monotonic)
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Record progress, and print a line if it is time."""
        self._pace.update(done, total)
        now = time.monotonic()
        if now - self._last < max(LINE_SECONDS, (now - self._started) / LINES):
            return
        self._last = now
        parts = [f"{done:,} of {total:,}", _speed(self._pace, self._unit), note]
        say(f"{self._description}: {', '.join(filter(None, parts))}")


def _speed(pace: Pace, unit: str) -> str:
    """Return rate and remaining time, if known."""
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
    """Prints log messages of the package, above a bar if there is one."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        say(f"warning: {text}" if record.levelno >= logging.WARNING else text)


@contextmanager
def spoken_log() -> Iterator[None]:
    """Print log messages of the package to stderr: stages, progress and warnings.

    If there are several processes started by `torchrun`, only the main one prints messages other
    than warnings.
    """
    logger, handler = logging.getLogger("seit"), _Speaker()
    before = logger.level
    logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
