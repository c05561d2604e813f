"""Confusion: which classes a classifier takes for which.

Legend: N classes; a count matrix has true classes in rows and predicted ones in columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.errors import UsageError
from seit.report.element import no_data
from seit.report.matrix import MAX_CELLS, Cell, square_matrix
from seit.report.numbers import number, percent
from seit.report.tables import table


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
    cells = [
        _cell(i, j, int(counts[i, j]), float(shares[i, j]), classes)
        for i in range(N)
        for j in range(N)
    ]
    return square_matrix(
        cells,
        names=classes,
        key=[
            (0, "right"),
            (1, "confused"),
            (None, "the stronger, the larger the share of its row"),
        ],
        title=title,
        note="rows: true class · columns: predicted class",
        label=f"{title}: confusion matrix of {N} classes, "
        f"{percent(float(np.trace(counts) / counts.sum()))} right",
    )


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


def _cell(i: int, j: int, count: int, share: float, classes: Sequence[str]) -> Cell:
    return Cell(
        i,
        j,
        opacity=share**0.5,
        colour=0 if i == j else 1,
        tooltip=f"{classes[i]} → {classes[j]}: {number(count)} ({percent(share)} of {classes[i]})",
        written=number(count) if count < 10_000 else f"{count / 1000:.0f}k",
        is_empty=not count,
    )
