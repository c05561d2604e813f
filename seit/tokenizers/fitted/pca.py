"""Principal components of patches, partly whitened: the points for k-means.

Legend: N patches, D values of a patch, C components kept.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_EIGENVALUE_FLOOR = 1e-4


class Components(NamedTuple):
    """Linear maps between centered patches and their first components, all float32."""

    mean: Tensor
    """(D,)."""
    analysis: Tensor
    """(D, C); maps the fitted patches to unit mean square."""
    synthesis: Tensor
    """(C, D), the inverse map."""
    points: Tensor
    """(N, C), the fitted patches in the new coordinates."""

    def maps(self) -> dict[str, Tensor]:
        """Return the linear maps between patches and points, by name."""
        return {"mean": self.mean, "analysis": self.analysis, "synthesis": self.synthesis}


def fit_components(patches_ND: Tensor, *, dim: int, whitening: float) -> Components:
    """Fit to patches float32 (N, D).

    Args:
        patches_ND: the patches.
        dim: C, at most D.
        whitening: 0–1; component i is scaled to the variance λ_i^(1 − whitening).
    """
    mean_D = patches_ND.mean(0)
    centred_ND = patches_ND - mean_D
    covariance_DD = (centred_ND.T @ centred_ND).double() / len(centred_ND)
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    values_C = values_D.flip(0)[:dim].clamp(min=0)
    vectors_DC = vectors_DD.flip(1)[:, :dim]
    vectors_DC = vectors_DC * vectors_DC.sum(0).sign().where(vectors_DC.sum(0) != 0, 1)
    floor = max(float(values_C[0]) * _EIGENVALUE_FLOOR, 1e-9)
    scale_C = (values_C + floor).pow(-whitening / 2)
    points_NC = centred_ND @ (vectors_DC * scale_C).float()
    unit = points_NC.square().mean().sqrt().clamp(min=1e-6)
    return Components(
        mean=mean_D,
        analysis=(vectors_DC * scale_C).float() / unit,
        synthesis=((vectors_DC / scale_C).T.float() * unit).contiguous(),
        points=points_NC / unit,
    )
