"""Alignments: which phone or word is spoken when in each file, from a CSV table or TextGrids."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from seit.documents import read_plain, reason_of
from seit.errors import UsageError
from seit.ingest import read_table

COLUMNS = ("key", "start", "end", "label")
_MAX_GRID_BYTES = 1 << 26
_VALUE = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|\[\d*\]|(?<![\w.])(?P<number>-?\d+(?:\.\d+)?(?:[eE]-?\d+)?)(?![\w.])'
)


@dataclass(frozen=True)
class Span:
    """A labeled stretch of a file.

    Attributes:
        start: seconds from the start of the file.
        end: seconds, after the start.
        label: phone or word.
    """

    start: float
    end: float
    label: str


def read_alignments(path: str | Path, *, tier: str | None = None) -> dict[str, list[Span]]:
    """Read the spans of each file by its key.

    Args:
        path: a table with the columns key, start, end and label, times in seconds; or a folder of
            TextGrid files of Praat, whose paths without suffix are the keys without suffix.
        tier: interval tier of the TextGrids, such as phones; the only one by default.

    Raises:
        UsageError: the files cannot be read, or a span does not end after it starts.
    """
    place = Path(path)
    if not place.is_dir():
        return _read_rows(place)
    grids = sorted(place.rglob("*.TextGrid"))
    if not grids:
        raise UsageError(
            f"{place} holds no .TextGrid file; pass a folder of them, or a CSV table of "
            f"{','.join(COLUMNS)}"
        )
    return {
        grid.relative_to(place).with_suffix("").as_posix(): read_textgrid(grid, tier=tier)
        for grid in grids
    }


def spans_of(alignments: Mapping[str, list[Span]], file: str) -> list[Span]:
    """Return the spans of a file, by its key with or without the suffix."""
    stem = file.rpartition(".")[0] if "." in file.rpartition("/")[2] else file
    return alignments.get(file) or alignments.get(stem) or []


def _read_rows(path: Path) -> dict[str, list[Span]]:
    try:
        columns, rows = read_table(path)
    except OSError as error:
        raise UsageError(
            f"the alignments {path} cannot be read: {reason_of(error)}; pass a CSV table of "
            f"{','.join(COLUMNS)}, or a folder of TextGrids"
        ) from error
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]}; a table of alignments has {', '.join(COLUMNS)}"
        )
    places = [columns.index(name) for name in COLUMNS]
    found: dict[str, list[Span]] = {}
    for where, values in rows:
        key, start, end, label = (values[place] for place in places)
        span = _span(start, end, str(label), where=f"{where} of {path}")
        found.setdefault(str(key), []).append(span)
    return found


def _span(start: object, end: object, label: str, *, where: str) -> Span:
    try:
        span = Span(float(str(start)), float(str(end)), label)
    except ValueError:
        raise UsageError(f"{where} has times {start!r} and {end!r}; both must be seconds") from None
    if not (0 <= span.start < span.end < math.inf):
        raise UsageError(
            f"{where} runs from {span.start:g} to {span.end:g} s; a span starts at 0 or later and "
            "ends after it starts"
        )
    return span


def read_textgrid(path: Path, *, tier: str | None = None) -> list[Span]:
    """Read the labeled intervals of a tier of a TextGrid, in Praat's long or short text format.

    Raises:
        UsageError: it is no TextGrid, or it has no such tier or several.
    """
    try:
        data = read_plain(path, max_bytes=_MAX_GRID_BYTES)
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        tiers = _tiers(_values(text))
    except (OSError, ValueError, StopIteration) as error:
        raise UsageError(f"{path} is no readable TextGrid ({reason_of(error)})") from error
    names = [name for name in tiers if tier in (None, name)]
    if len(names) != 1:
        advice = "name one by --tier" if tier is None else f"none is called {tier!r}"
        raise UsageError(f"{path} has the interval tiers {', '.join(tiers) or 'none'}: {advice}")
    return [
        _span(start, end, label, where=str(path))
        for start, end, label in tiers[names[0]]
        if label.strip()
    ]


def _values(text: str) -> Iterator[str | float]:
    """Yield the texts and numbers of a TextGrid, which both formats have in the same order.

    Numbers in brackets, which count items, are left out.
    """
    for found in _VALUE.finditer(text):
        if found["text"] is not None:
            yield found["text"].replace('""', '"')
        elif found["number"] is not None:
            yield float(found["number"])


def _tiers(values: Iterator[str | float]) -> dict[str, list[tuple[float, float, str]]]:
    """Return the intervals of each interval tier, by name."""
    if (next(values), next(values)) != ("ooTextFile", "TextGrid"):
        raise ValueError("its header is another one")
    _, _, count = _number(values), _number(values), int(_number(values))
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for _ in range(count):
        kind, name = next(values), str(next(values))
        _, _, size = _number(values), _number(values), int(_number(values))
        if kind == "IntervalTier":
            tiers[name] = [
                (_number(values), _number(values), str(next(values))) for _ in range(size)
            ]
        else:
            for _ in range(size):
                _number(values), next(values)
    return tiers


def _number(values: Iterator[str | float]) -> float:
    value = next(values)
    if not isinstance(value, float):
        raise ValueError(f"found {value!r}, expected a number")
    return value
