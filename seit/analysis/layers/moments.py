"""Sums over samples from which CCA, ridge regression and R² follow, in one pass.

Legend: n samples, D features of a layer, K features of a target.
"""

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
    8 · (D² + D·K + K²) bytes.

    Args:
        dim_x: D.
        dim_y: K.
    """

    def __init__(self, dim_x: int, dim_y: int) -> None:
        self.dim_x = dim_x
        self.count = 0
        self._shift: Array | None = None
        self._sum: Array = np.zeros(dim_x + dim_y)
        self._products: Array = np.zeros((dim_x + dim_y, dim_x + dim_y))

    @property
    def dim_y(self) -> int:
        """K."""
        return len(self._sum) - self.dim_x

    def add(self, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> None:
        """Add samples (n, D) and (n, K).

        Raises:
            UsageError: they are of other sizes, or hold a value that is not finite.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise UsageError(
                f"the layer has shape {x.shape} and the target {y.shape}; both need a row for each "
                "sample"
            )
        if (x.shape[1], y.shape[1]) != (self.dim_x, self.dim_y):
            raise UsageError(
                f"the layer has {x.shape[1]} features and the target {y.shape[1]}, after "
                f"{self.dim_x} and {self.dim_y} before; both must keep their sizes"
            )
        if not len(x):
            return
        values = np.concatenate([x, y], axis=1, dtype=np.float64)
        if not np.isfinite(values).all():
            where = "layer" if not np.isfinite(x).all() else "target"
            raise UsageError(f"the {where} holds values that are not finite; check its inputs")
        if self._shift is None:
            self._shift = values.mean(0)
        values = values - self._shift
        self.count += len(values)
        self._sum += values.sum(0)
        self._products += values.T @ values

    def __add__(self, other: Self) -> Self:
        """Return the sums over the samples of both."""
        return self._combined(other, 1)

    def __sub__(self, other: Self) -> Self:
        """Return the sums over the samples of this one without those of ``other``, a part of it."""
        return self._combined(other, -1)

    def _combined(self, other: Self, sign: int) -> Self:
        if (self.dim_x, self.dim_y) != (other.dim_x, other.dim_y):
            raise UsageError(
                f"sums of {self.dim_x} and {self.dim_y} features cannot be combined with those of "
                f"{other.dim_x} and {other.dim_y}"
            )
        result = type(self)(self.dim_x, self.dim_y)
        result._shift = self._shift if self._shift is not None else other._shift
        total, products = other._around(result._shift)
        result.count = self.count + sign * other.count
        result._sum = self._sum + sign * total
        result._products = self._products + sign * products
        return result

    def _around(self, shift: Array | None) -> tuple[Array, Array]:
        """Return the sums of values and products, shifted by ``shift``."""
        if self._shift is None or shift is None:
            return self._sum, self._products
        moved = self._shift - shift
        cross = np.outer(self._sum, moved)
        total = self._sum + self.count * moved
        products = self._products + cross + cross.T + self.count * np.outer(moved, moved)
        return total, products

    def covariances(self) -> Covariances:
        """Return means and covariances of at least two samples.

        Raises:
            UsageError: there are fewer.
        """
        if self.count < 2 or self._shift is None:
            raise UsageError(
                f"{self.count} samples have no covariance; at least 2 are needed in each fold"
            )
        mean = self._sum / self.count
        centered = self._products / self.count - np.outer(mean, mean)
        cut = self.dim_x
        return Covariances(
            count=self.count,
            mean_x=(mean + self._shift)[:cut],
            mean_y=(mean + self._shift)[cut:],
            xx=centered[:cut, :cut],
            xy=centered[:cut, cut:],
            yy=centered[cut:, cut:],
        )
