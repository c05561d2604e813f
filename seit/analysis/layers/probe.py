"""Linear probes from covariances: ridge regression and linear discriminant analysis.

Legend: n samples, D features of a layer, K classes or targets.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.moments import Array, Covariances

_ROUNDING = 1e-12
"""Share of a covariance that rounding may leave of a feature without variance."""


@dataclass(frozen=True)
class LinearMap:
    """Map x ↦ x·weight + bias.

    Attributes:
        weight: (D, K).
        bias: (K,).
    """

    weight: Array
    bias: Array

    @classmethod
    def ridge(cls, data: Covariances, *, penalty: float) -> Self:
        """Fit ridge regression of the target on the layer.

        Args:
            data: covariances of both.
            penalty: share of the mean variance of a feature that is added to each.
        """
        weight = _solved(data.xx, data.xy, penalty=penalty)
        return cls(weight, data.mean_y - data.mean_x @ weight)

    @classmethod
    def discriminant(cls, data: Covariances, *, penalty: float) -> Self:
        """Fit linear discriminant analysis; the target is one-hot classes.

        Scores are log posteriors up to a constant. The covariance within classes is shrunk to a
        multiple of the identity by ``penalty``, as in `ridge`.
        """
        shares = data.mean_y.clip(min=1e-12)
        means = data.mean_x[:, None] + data.xy / shares
        offsets = means - data.mean_x[:, None]
        within = data.xx - (offsets * shares) @ offsets.T
        weight = _solved(within, means, penalty=penalty)
        return cls(weight, np.log(shares) - 0.5 * (means * weight).sum(0))

    def scores(self, x: npt.NDArray[np.floating]) -> Array:
        """Return the mapped samples (n, K)."""
        mapped: Array = x.astype(np.float64) @ self.weight + self.bias
        return mapped

    def determination(self, data: Covariances) -> Array:
        """Return R² (K,) on other data, at most 1; 0 for a target that is constant there."""
        residual_mean = data.mean_y - data.mean_x @ self.weight - self.bias
        explained = 2 * np.einsum("dk,dk->k", self.weight, data.xy)
        predicted = np.einsum("dk,de,ek->k", self.weight, data.xx, self.weight)
        variance = np.diag(data.yy)
        errors = variance - explained + predicted + residual_mean**2
        ratio = np.divide(errors, variance, out=np.ones_like(errors), where=variance > 0)
        shares: Array = 1.0 - ratio
        return shares


def _solved(covariance: Array, right: Array, *, penalty: float) -> Array:
    """Return the weights (D, K) that a covariance (D, D) maps to ``right`` (D, K).

    ``penalty``, a share of the mean variance of a feature, is added to the variance of each. Where
    constant or repeated features leave the weights open without it, they are the smallest.
    """
    dim = len(covariance)
    added = penalty * np.trace(covariance) / dim
    full = covariance + added * np.eye(dim)
    weight: Array
    if added > 0 and penalty > _ROUNDING:
        weight = np.linalg.solve(full, right)
    else:
        weight = np.linalg.lstsq(full, right, rcond=_ROUNDING)[0]
    return weight
