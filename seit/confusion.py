"""Sparse confusion counts, whose memory grows with the samples.

Legend: N classes, n pairs of true and predicted class that occur.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MATRIX_CLASSES = 100
"""Most classes for which counts are drawn, and stored in `run.json`, as a matrix."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of predicted classes for each true class.

    Attributes:
        num_classes: N.
        pairs: int64 (n,), ascending: true class · N + predicted class.
        counts: int64 (n,), 1 or more: samples of each pair.
    """

    num_classes: int
    pairs: Integers
    counts: Integers

    @classmethod
    def of_labels(
        cls, labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], num_classes: int
    ) -> Self:
        """Count labels (M,) and predictions (M,), 0 … N−1; samples of label −1 are skipped."""
        known = labels >= 0
        cells = labels[known].astype(np.int64) * num_classes + predicted[known]
        return cls(num_classes, *np.unique(cells, return_counts=True))

    @classmethod
    def of_matrix(cls, matrix: npt.ArrayLike) -> Self:
        """Convert counts (N, N), with true classes as rows and predicted ones as columns.

        Raises:
            UsageError: they are not a square matrix of non-negative integers.
        """
        counts: npt.NDArray[Any] = np.asarray(matrix)
        N = len(counts) if counts.ndim else 0
        if counts.shape != (N, N) or (N and counts.dtype.kind not in "iu"):
            raise UsageError(
                f"confusion counts are {counts.dtype} of shape {counts.shape}, expected integers "
                "of shape (N, N)"
            )
        if N and counts.min() < 0:
            raise UsageError(f"confusion counts go down to {counts.min()}, expected none below 0")
        cells = np.flatnonzero(counts)
        return cls(N, cells, counts.ravel()[cells].astype(np.int64))

    def __add__(self, other: "Confusion") -> "Confusion":
        """Add the counts of two confusions of the same N classes."""
        cells, places = np.unique(np.concatenate([self.pairs, other.pairs]), return_inverse=True)
        counts = np.zeros(len(cells), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        return Confusion(self.num_classes, cells, counts)

    @property
    def true(self) -> Integers:
        """The true class of each pair: int64 (n,)."""
        return self.pairs // max(1, self.num_classes)

    @property
    def predicted(self) -> Integers:
        """The predicted class of each pair: int64 (n,)."""
        return self.pairs % max(1, self.num_classes)

    @property
    def total(self) -> int:
        """Number of samples."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """Number of correctly predicted samples."""
        return int(self.counts[self.true == self.predicted].sum())

    @cached_property
    def support(self) -> Integers:
        """Samples of each true class: int64 (N,)."""
        return self._sum(self.true, self.counts)

    @cached_property
    def taken(self) -> Integers:
        """Samples of each predicted class: int64 (N,)."""
        return self._sum(self.predicted, self.counts)

    @cached_property
    def hits(self) -> Integers:
        """Correctly predicted samples of each class: int64 (N,)."""
        return self._sum(self.true, np.where(self.true == self.predicted, self.counts, 0))

    @property
    def recalls(self) -> Floats:
        """Recall of each class: (N,), NaN without samples."""
        return _ratio(self.hits, self.support)

    @property
    def precisions(self) -> Floats:
        """Precision of each class: (N,), NaN without predictions."""
        return _ratio(self.hits, self.taken)

    @property
    def f1s(self) -> Floats:
        """Harmonic mean of precision and recall of each class: (N,), NaN if it never occurs."""
        return _ratio(2 * self.hits, self.support + self.taken)

    def to_matrix(self) -> Integers:
        """Return int64 (N, N), with true classes as rows; large for many classes."""
        matrix = np.zeros((self.num_classes, self.num_classes), dtype=np.int64)
        matrix[self.true, self.predicted] = self.counts
        return matrix

    def _sum(self, classes: Integers, counts: Integers) -> Integers:
        sums = np.zeros(self.num_classes, dtype=np.int64)
        np.add.at(sums, classes, counts)
        return sums


def _ratio(part: Integers, whole: Integers) -> Floats:
    ratio: Floats = np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return ratio
