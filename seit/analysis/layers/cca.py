"""Canonical correlation analysis from covariances, on training data and held out.

CCA by whitening and SVD; PWCCA as in Morcos et al., "Insights on representational similarity"
(arXiv 1806.05759), centered, so that it does not depend on means; SVCCA as in Raghu et al.
(arXiv 1706.05806). Correlations on training data grow with the number of features (0.27 for
shuffled labels of 51 phones and 384 features), so held-out ones are what is reported.

Legend: D features of a layer, K of a target, C canonical components.
"""

from dataclasses import dataclass

import numpy as np

from seit.analysis.layers.moments import Array, Covariances
from seit.errors import UsageError

RIDGE = 1e-3
"""Share of the largest eigenvalue that is added to a covariance before it is inverted."""
_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Canonical:
    """Canonical directions of a layer and a target.

    Attributes:
        left: directions (D, C) in the layer.
        right: directions (K, C) in the target.
        correlations: (C,) on the data that they were fitted to, falling.
        weights: (C,) of PWCCA: how much of the layer each component accounts for; they sum to 1.
    """

    left: Array
    right: Array
    correlations: Array
    weights: Array


@dataclass(frozen=True)
class Correlation:
    """Summary of canonical correlations.

    Attributes:
        mean: mean over the components.
        weighted: mean weighted by how much of the layer each accounts for, PWCCA.
    """

    mean: float
    weighted: float


@dataclass(frozen=True)
class Whitening:
    """Whitening of a layer and a target: maps (D, r) and (K, s) whose covariances are 1."""

    x: Array
    y: Array

    @classmethod
    def of(
        cls, data: Covariances, *, ridge: float = RIDGE, variance: float | None = None
    ) -> "Whitening":
        """Whiten both views of some data.

        Args:
            data: covariances of the layer and the target.
            ridge: share of the largest eigenvalue added to each covariance.
            variance: share of the variance whose principal components are kept in both views
                before, 0–1: 0.99 is SVCCA; None keeps all.

        Raises:
            UsageError: the layer or the target is constant.
        """
        return cls(
            _whitening(data.xx, ridge, variance, what="layer"),
            _whitening(data.yy, ridge, variance, what="target"),
        )


def fit_cca(
    data: Covariances,
    *,
    ridge: float = RIDGE,
    variance: float | None = None,
    whitening: Whitening | None = None,
) -> Canonical:
    """Fit canonical directions.

    Args:
        data: covariances of the layer and the target.
        ridge: see `Whitening.of`.
        variance: see `Whitening.of`.
        whitening: whitening of the same data, or of a rearrangement of it.

    Raises:
        UsageError: the layer or the target is constant.
    """
    white = whitening or Whitening.of(data, ridge=ridge, variance=variance)
    left, correlations, right = np.linalg.svd(white.x.T @ data.xy @ white.y, full_matrices=False)
    directions = white.x @ left
    return Canonical(
        left=directions,
        right=white.y @ right.T,
        correlations=np.clip(correlations, 0.0, 1.0),
        weights=_shares(data.xx, directions),
    )


def training_correlation(fitted: Canonical) -> Correlation:
    """Return the correlations on the data that the directions were fitted to."""
    return _summary(fitted.correlations, fitted.weights)


def held_out_correlation(fitted: Canonical, data: Covariances) -> Correlation:
    """Return the correlations of the directions on other data.

    A component that is constant there has none and counts as 0.
    """
    return _summary(held_out(fitted, data), fitted.weights)


def held_out(fitted: Canonical, data: Covariances) -> Array:
    """Return the correlation (C,) of each pair of directions on other data, −1 to 1."""
    shared = ((data.xy @ fitted.right) * fitted.left).sum(0)
    left = ((data.xx @ fitted.left) * fitted.left).sum(0)
    right = ((data.yy @ fitted.right) * fitted.right).sum(0)
    scale = np.sqrt(np.clip(left, 0, None) * np.clip(right, 0, None))
    found: Array = np.zeros_like(shared)
    np.divide(shared, scale, out=found, where=scale > _RANK_TOLERANCE)
    return found


def _whitening(covariance: Array, ridge: float, variance: float | None, *, what: str) -> Array:
    """Return W (D, r) with Wᵀ(Σ + ridge·λ₁)W = 1, without directions that never vary."""
    values, vectors = np.linalg.eigh(covariance)
    largest = float(values[-1])
    if not largest > 0:
        raise UsageError(f"the {what} is constant over the samples; there is nothing to correlate")
    kept = values > _RANK_TOLERANCE * largest
    if variance is not None:
        falling = np.cumsum(values[::-1]) / values.clip(min=0).sum()
        kept &= values >= values[::-1][int(np.searchsorted(falling, variance))]
    values, vectors = values[kept], vectors[:, kept]
    whitening: Array = vectors / np.sqrt(values + ridge * largest)
    return whitening


def _shares(covariance: Array, directions: Array) -> Array:
    """Return Σ_j |⟨h_i, x_j⟩| of each component h_i over the neurons x_j, divided by their sum."""
    turned = covariance @ directions
    scale = np.sqrt((turned * directions).sum(0))
    projected = np.abs(turned).sum(0)
    sums: Array = np.divide(projected, scale, out=np.zeros_like(scale), where=scale > 0)
    shares: Array = sums / sums.sum()
    return shares


def _summary(correlations: Array, weights: Array) -> Correlation:
    return Correlation(mean=float(correlations.mean()), weighted=float(correlations @ weights))
