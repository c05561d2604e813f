"""Confusion matrices of classifiers.

Legend: N classes; a count matrix has true classes in rows and predicted ones in columns.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.confusion import Confusion
from seit.errors import UsageError
from seit.numbers import number, percent
from seit.report.markup import no_data
from seit.report.matrix import MAX_CELLS, Cell, cell_matrix
from seit.report.tables import table


class Confused(NamedTuple):
    """A true class, a wrong prediction, its count, and its share of the row (0–1)."""

    true: str
    predicted: str
    num_images: int
    share: float


def worst_confused(
    counts: npt.NDArray[Any] | Confusion, *, classes: Sequence[str], top: int = 10
) -> list[Confused]:
    """Return the ``top`` wrong pairs with the highest counts, in descending order.

    ``counts`` is int (N, N), non-negative, or sparse; ``classes`` names its N rows and columns.
    Pairs with count 0 are left out; ties are ordered by share, then as in the matrix.

    Raises:
        UsageError: ``counts`` is not a square matrix of non-negative integers with N names.
    """
    found = _checked(counts, classes)
    wrong = np.flatnonzero(found.true != found.predicted)
    rows, columns, numbers = found.true[wrong], found.predicted[wrong], found.counts[wrong]
    shares = numbers / np.maximum(found.support[rows], 1)
    order = np.lexsort((-shares, -numbers))[: max(0, top)]
    return [
        Confused(classes[i], classes[j], int(number), float(share))
        for i, j, number, share in zip(
            rows[order], columns[order], numbers[order], shares[order], strict=True
        )
    ]


def confusion_matrix(
    counts: npt.NDArray[Any] | Confusion,
    *,
    classes: Sequence[str],
    title: str,
    link: Callable[[int, int], str] | None = None,
) -> Markup:
    """Return a heat map of ``counts``, int (N, N) or sparse, shaded by share of the row.

    The opacity of a cell is the square root of its share, so that an error of 2 % is visible next
    to a diagonal of 95 %. Cells contain counts up to 20 classes and only tooltips up to 100; beyond
    that the 20 worst pairs are listed instead.

    ``link`` returns the address of the samples of a (true, predicted) cell that is not empty.

    Raises:
        UsageError: ``counts`` is not a square matrix of non-negative integers with N names.
    """
    found = _checked(counts, classes)
    N = found.num_classes
    if not found.total:
        return no_data(title=title, kind="matrix")
    if N > MAX_CELLS:
        worst = worst_confused(found, classes=classes, top=20)
        return table(
            [(row.true, row.predicted, row.num_images, percent(row.share)) for row in worst],
            header=("true class", "predicted as", "images", "share of class"),
            title=title,
            caption=f"The {len(worst)} most frequent confusions among {N:,} classes.",
        )
    matrix = found.to_matrix()
    shares = matrix / np.maximum(found.support, 1)[:, None]
    cells = [
        _cell(i, j, int(matrix[i, j]), float(shares[i, j]), classes, link)
        for i in range(N)
        for j in range(N)
    ]
    return cell_matrix(
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
        f"{percent(found.right / found.total)} right",
    )


def _checked(counts: npt.NDArray[Any] | Confusion, classes: Sequence[str]) -> Confusion:
    found = counts if isinstance(counts, Confusion) else Confusion.of_matrix(counts)
    N = len(classes)
    if found.num_classes != N:
        raise UsageError(
            f"confusion counts are of {found.num_classes} classes, expected {N} for {N} class names"
        )
    return found


def _cell(
    i: int,
    j: int,
    count: int,
    share: float,
    classes: Sequence[str],
    link: Callable[[int, int], str] | None,
) -> Cell:
    return Cell(
        i,
        j,
        opacity=share**0.5,
        color=0 if i == j else 1,
        tooltip=f"{classes[i]} → {classes[j]}: {number(count)} ({percent(share)} of {classes[i]})",
        written=number(count) if count < 10_000 else f"{count / 1000:.0f}k",
        is_empty=not count,
        link=link(i, j) if link is not None and count else None,
    )
