"""Linear probes from covariances: ridge regression and linear discriminant analysis.

Legend: n samples, D features of a layer, K classes or targets.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.moments import Array, Covariances


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
        dim = len(data.mean_x)
        scale = np.trace(data.xx) / dim
        weight = np.linalg.solve(data.xx + penalty * scale * np.eye(dim), data.xy)
        return cls(weight, data.mean_y - data.mean_x @ weight)

    @classmethod
    def discriminant(cls, data: Covariances, *, penalty: float) -> Self:
        """Fit linear discriminant analysis; the target is one-hot classes.

        Scores are log posteriors up to a constant. The covariance within classes is shrunk to a
        multiple of the identity by ``penalty``, as in `ridge`.
        """
        dim, shares = len(data.mean_x), data.mean_y.clip(min=1e-12)
        means = data.mean_x[:, None] + data.xy / shares
        offsets = means - data.mean_x[:, None]
        within = data.xx - (offsets * shares) @ offsets.T
        scale = np.trace(within) / dim
        weight = np.linalg.solve(within + penalty * scale * np.eye(dim), means)
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
