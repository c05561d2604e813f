"""Sums over samples from which CCA, ridge regression and R² follow, in one pass.

Legend: n samples, D features of a layer, K features of a target, P nulls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Covariances:
    """Means and covariances of a layer x and a target y, divided by n.

    Attributes:
        count: n.
        mean_x: (D,).
        mean_y: (K,).
        xx: (D, D).
        xy: (D, K).
        yy: (K, K).
    """

    count: int
    mean_x: Array
    mean_y: Array
    xx: Array
    xy: Array
    yy: Array


class Moments:
    """Sums of a layer x (n, D), a target y (n, K) and their products, in float64.

    Values are shifted by those of the first batch before they are summed, so that a large mean
    cancels nothing. Accumulators of parts of the data can be added and subtracted exactly: the sums
    over the training part of a fold are those of all data minus those of the fold. Memory is
    8 · (D² + (P + 1)·D·K + K²) bytes.

    Products with a rearranged target are around the means of each part, and stay so in sums of
    parts: where parts differ in the means of x and y, that says nothing of chance.

    Args:
        dim_x: D.
        dim_y: K.
        num_nulls: P, rearranged targets that are correlated with x as well.
    """

    def __init__(self, dim_x: int, dim_y: int, *, num_nulls: int = 0) -> None:
        self.count = 0
        self._shift: tuple[Array, Array] | None = None
        self._sum_x: Array = np.zeros(dim_x)
        self._sum_y: Array = np.zeros(dim_y)
        self._xx: Array = np.zeros((dim_x, dim_x))
        self._yy: Array = np.zeros((dim_y, dim_y))
        self._xy: Array = np.zeros((dim_x, dim_y))
        self._null_sums: Array = np.zeros((num_nulls, dim_y))
        self._nulls: Array = np.zeros((num_nulls, dim_x, dim_y))

    PARTS = (
        *("count", "shift_x", "shift_y"),
        *("sum_x", "sum_y", "xx", "yy", "xy", "null_sums", "nulls"),
    )
    """Names of the sums."""

    def arrays(self) -> dict[str, Array]:
        """Return the sums by name, to continue from."""
        shift = self._shift or (np.zeros_like(self._sum_x), np.zeros_like(self._sum_y))
        values = np.array([self.count], dtype=np.float64), *shift, *self._sums()
        return dict(zip(self.PARTS, values, strict=True))

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> Self:
        """Continue from the sums of :meth:`arrays`.

        Raises:
            KeyError: one is missing.
            ValueError: their shapes do not fit together.
        """
        nulls = arrays["nulls"]
        if nulls.ndim != 3:
            raise ValueError("sums of products")
        num_nulls, dim_x, dim_y = nulls.shape
        one = cls(dim_x, dim_y, num_nulls=num_nulls)
        for name, value in one.arrays().items():
            if (arrays[name].shape, arrays[name].dtype) != (value.shape, value.dtype):
                raise ValueError(f"{name} of a fitting shape")
        one.count = int(arrays["count"][0])
        if one.count:
            one._shift = arrays["shift_x"], arrays["shift_y"]
        one._take([arrays[name] for name in cls.PARTS[3:]])
        return one

    @property
    def dims(self) -> tuple[int, int, int]:
        """D, K and P."""
        return len(self._sum_x), len(self._sum_y), len(self._nulls)

    def add(
        self,
        x: npt.NDArray[np.floating],
        y: npt.NDArray[np.floating],
        *,
        nulls: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add samples (n, D) and (n, K).

        Args:
            x: layer.
            y: target.
            nulls: rearranged targets (P, n, K); None if P is 0.

        Raises:
            UsageError: they are of other sizes, or hold a value that is not finite.
        """
        others = np.zeros((0, *y.shape)) if nulls is None else nulls
        self.check(x, y, others)
        if not len(x):
            return
        left, right = x.astype(np.float64), y.astype(np.float64)
        if self._shift is None:
            self._shift = left.mean(0), right.mean(0)
        left, right = left - self._shift[0], right - self._shift[1]
        self._add_nulls(left, others.astype(np.float64) - self._shift[1])
        self.count += len(left)
        self._sum_x += left.sum(0)
        self._sum_y += right.sum(0)
        self._xx += left.T @ left
        self._yy += right.T @ right
        self._xy += left.T @ right

    def _add_nulls(self, left: Array, nulls: Array) -> None:
        """Add products of samples (n, D) with rearranged targets (P, n, K), around their means."""
        size, before = len(left), self.count
        mean = left.mean(0)
        moved = mean - self._sum_x / max(1, before)
        weight = before * size / (before + size)
        for number, right in enumerate(nulls):
            mean_right = right.mean(0)
            change = mean_right - self._null_sums[number] / max(1, before)
            self._nulls[number] += (left - mean).T @ (right - mean_right)
            self._nulls[number] += weight * np.outer(moved, change)
            self._null_sums[number] += right.sum(0)

    def check(
        self,
        x: npt.NDArray[np.floating],
        y: npt.NDArray[np.floating],
        nulls: npt.NDArray[np.floating],
    ) -> None:
        """Raise a `UsageError` for samples that :meth:`add` does not take."""
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise UsageError(
                f"the layer has shape {x.shape} and the target {y.shape}; both need a row for each "
                "sample"
            )
        dim_x, dim_y, num_nulls = self.dims
        if (x.shape[1], y.shape[1]) != (dim_x, dim_y) or nulls.shape != (num_nulls, *y.shape):
            raise UsageError(
                f"the layer has {x.shape[1]} features and the target {y.shape[1]}, after {dim_x} "
                f"and {dim_y} before; both must keep their sizes"
            )
        for what, one in (("layer", x), ("target", y)):
            if not np.isfinite(one).all():
                raise UsageError(f"the {what} holds values that are not finite; check its inputs")

    def __add__(self, other: Self) -> Self:
        """Return the sums over the samples of both."""
        return self._combined(other, 1)

    def __sub__(self, other: Self) -> Self:
        """Return the sums over the samples of this one without those of ``other``, a part of it."""
        return self._combined(other, -1)

    def _combined(self, other: Self, sign: int) -> Self:
        if self.dims != other.dims:
            raise UsageError(
                f"sums of {self.dims[:2]} features cannot be combined with those of "
                f"{other.dims[:2]}; both must be of the same layer and target"
            )
        dim_x, dim_y, num_nulls = self.dims
        result = type(self)(dim_x, dim_y, num_nulls=num_nulls)
        result._shift = self._shift if self._shift is not None else other._shift
        result.count = self.count + sign * other.count
        own, others = self._sums(), other._around(result._shift)
        result._take([one + sign * two for one, two in zip(own, others, strict=True)])
        return result

    def _sums(self) -> tuple[Array, ...]:
        """Return the sums in the order of :attr:`PARTS`."""
        first = self._sum_x, self._sum_y, self._xx, self._yy, self._xy
        return *first, self._null_sums, self._nulls

    def _take(self, sums: Sequence[Array]) -> None:
        """Set the sums that :meth:`_sums` returns."""
        self._sum_x, self._sum_y, self._xx, self._yy, self._xy = sums[:5]
        self._null_sums, self._nulls = sums[5:]

    def _around(self, shift: tuple[Array, Array] | None) -> tuple[Array, ...]:
        """Return the sums for another shift."""
        if self._shift is None or shift is None:
            return self._sums()
        a, b = self._shift[0] - shift[0], self._shift[1] - shift[1]
        cross_x, cross_y = np.outer(self._sum_x, a), np.outer(self._sum_y, b)
        return (
            self._sum_x + self.count * a,
            self._sum_y + self.count * b,
            self._xx + cross_x + cross_x.T + self.count * np.outer(a, a),
            self._yy + cross_y + cross_y.T + self.count * np.outer(b, b),
            self._xy
            + np.outer(self._sum_x, b)
            + np.outer(a, self._sum_y)
            + self.count * np.outer(a, b),
            self._null_sums + self.count * b,
            self._nulls,
        )

    def covariances(self, null: int = 0) -> Covariances:
        """Return means and covariances of at least two samples.

        Args:
            null: 0 for the target, 1…P for one of its rearrangements.

        Raises:
            UsageError: there are fewer.
        """
        if self.count < 2 or self._shift is None:
            raise UsageError(
                f"{self.count} samples have no covariance; at least 2 are needed in each fold"
            )
        n, mean_x, mean_y = self.count, self._sum_x / self.count, self._sum_y / self.count
        own = self._xy / n - np.outer(mean_x, mean_y)
        return Covariances(
            count=n,
            mean_x=mean_x + self._shift[0],
            mean_y=mean_y + self._shift[1],
            xx=self._xx / n - np.outer(mean_x, mean_x),
            xy=self._nulls[null - 1] / n if null else own,
            yy=self._yy / n - np.outer(mean_y, mean_y),
        )
