"""Confusion: which classes a classifier takes for which.

Legend: N classes; a count matrix has true classes in rows and predicted ones in columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.errors import UsageError
from seit.report.element import element, frame, no_data, percent_of, shorten
from seit.report.numbers import number, percent
from seit.report.tables import table

MAX_COUNTS = 20
"""Up to this many classes the counts are written into the cells."""
MAX_NAMES = 40
"""Up to this many classes the names stand beside the matrix."""
MAX_CELLS = 100
"""Up to this many classes the matrix is drawn; beyond, only the worst pairs are listed."""

_NAME_LIMIT = 16  # characters of a class name beside the matrix
_CELL = 46  # pixels; a cell is never larger


class Confused(NamedTuple):
    """A true class, the wrong class predicted for it, how often, and the share of its row (0–1)."""

    true: str
    predicted: str
    num_images: int
    share: float


def worst_confused(
    counts: npt.NDArray[Any], *, classes: Sequence[str], top: int = 10
) -> list[Confused]:
    """Return the ``top`` wrong pairs with the highest counts, the highest first.

    ``counts`` is int (N, N), non-negative; ``classes`` names its N rows and columns. Pairs that
    never happened are left out; equal counts are ordered by share, then as in the matrix.

    Raises:
        UsageError: ``counts`` is not a square matrix of non-negative integers with N names.
    """
    counts = _checked(counts, classes)
    shares = _row_shares(counts)
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    rows, columns = np.nonzero(wrong)
    order = np.lexsort((-shares[rows, columns], -wrong[rows, columns]))[: max(0, top)]
    return [
        Confused(classes[i], classes[j], int(counts[i, j]), float(shares[i, j]))
        for i, j in zip(rows[order], columns[order], strict=True)
    ]


def confusion_matrix(counts: npt.NDArray[Any], *, classes: Sequence[str], title: str) -> Markup:
    """Return a heat map of ``counts``, int (N, N), each row shaded by its shares.

    The opacity of a cell is the square root of its share of the row, so that an error of 2 % is
    visible beside a diagonal of 95 %. Up to 20 classes the counts stand in the cells, up to 100
    the cells have tooltips only; for more, the 20 worst pairs are listed instead.

    Raises:
        UsageError: ``counts`` is not a square matrix of non-negative integers with N names.
    """
    counts = _checked(counts, classes)
    N = len(counts)
    if not counts.sum():
        return no_data(title=title, kind="matrix")
    if N > MAX_CELLS:
        worst = worst_confused(counts, classes=classes, top=20)
        return table(
            [(row.true, row.predicted, row.num_images, percent(row.share)) for row in worst],
            header=("true class", "predicted as", "images", "share of class"),
            title=title,
            caption=f"The {len(worst)} most frequent confusions among {N:,} classes.",
        )
    shares = _row_shares(counts)
    written = N <= MAX_COUNTS
    # Without numbers an empty cell says nothing, and 100 classes would have 10,000 of them.
    cells = [
        _cell(i, j, int(counts[i, j]), float(shares[i, j]), classes)
        for i in range(N)
        for j in range(N)
        if written or counts[i, j]
    ]
    numbers = [
        _number(i, j, int(counts[i, j]), float(shares[i, j]), N=N)
        for i in range(N)
        for j in range(N)
        if written
    ]
    short = [shorten(str(name), limit=_NAME_LIMIT) for name in classes] if N <= MAX_NAMES else []
    names = [label for index, name in enumerate(short) for label in _names(index, name, N=N)]
    left = 16 + 7 * max((len(name) for name in short), default=0)
    slant = round(0.72 * left) + 4 if short else 8  # the names of columns rise at 45°
    drawing = element(
        "svg",
        element("rect", width="100%", height="100%", class_="ground"),
        element("svg", *cells, viewBox=f"0 0 {N} {N}", preserveAspectRatio="none"),
        *numbers,
        *names,
        class_="written" if written else "named" if short else "bare",
        role="img",
        aria_label=f"{title}: confusion matrix of {N} classes, "
        f"{percent(float(np.trace(counts) / counts.sum()))} right",
        style=f"--left:{left}px;--slant:{slant}px;--classes:{N};max-width:{max(240, N * _CELL)}px",
    )
    key = element(
        "ul",
        element("li", element("i", "", class_="c0"), "right"),
        element("li", element("i", "", class_="c1"), "confused"),
        element("li", "the stronger, the larger the share of its row", class_="empty"),
        class_="key",
    )
    note = "rows: true class · columns: predicted class"
    scroll = element("div", drawing, class_="scroll")
    return frame(scroll, key, title=title, note=note, kind="matrix")


def _checked(counts: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    counts = np.asarray(counts)
    N = len(classes)
    if counts.shape != (N, N) or (N and counts.dtype.kind not in "iu"):
        raise UsageError(
            f"confusion counts are {counts.dtype} of shape {counts.shape}, "
            f"expected integers of shape ({N}, {N}) for {N} class names"
        )
    if N and counts.min() < 0:
        raise UsageError(f"confusion counts go down to {counts.min()}, expected none below 0")
    return counts.astype(np.int64)


def _row_shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return counts (N, N) divided by the sum of their row; an empty row stays 0."""
    totals = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = counts / np.maximum(totals, 1)
    return shares


def _cell(i: int, j: int, count: int, share: float, classes: Sequence[str]) -> Markup:
    """Return the coloured cell of row i and column j, in units of one cell."""
    said = f"{classes[i]} → {classes[j]}: {number(count)} ({percent(share)} of {classes[i]})"
    return element(
        "rect",
        element("title", said),
        x=j,
        y=i,
        width=1,
        height=1,
        fill_opacity=share**0.5,
        class_="cell c0" if i == j else "cell c1",
    )


def _number(i: int, j: int, count: int, share: float, *, N: int) -> Markup:
    """Return the count in the middle of its cell; its colour follows the shade behind it."""
    opacity = share**0.5
    kind = "zero" if not count else "full" if opacity > 0.82 else "half" if opacity > 0.6 else None
    return element(
        "text",
        number(count) if count < 10_000 else f"{count / 1000:.0f}k",
        x=percent_of((j + 0.5) / N),
        y=percent_of((i + 0.5) / N),
        dy=".35em",
        text_anchor="middle",
        class_="count" if kind is None else f"count {kind}",
    )


def _names(index: int, name: str, *, N: int) -> tuple[Markup, Markup]:
    """Return the name left of its row and, slanted, above its column."""
    at = percent_of((index + 0.5) / N)
    row = element("text", name, x=0, y=at, dx=-8, dy=".35em", text_anchor="end", class_="tick")
    # An own drawing moves the origin to the column, where a rotation can take it from there.
    slanted = element("text", name, transform="translate(3 -6) rotate(-45)", class_="column tick")
    column = element("svg", slanted, x=at, y=0, width=1, height=1, overflow="visible")
    return row, column
