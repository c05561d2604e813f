"""Reduction of wide layers to their principal components, without looking at any target.

Legend: n frames, D features, C components.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.subjects.base import Clip

MAX_DIM = 512
"""Features of a layer above which its principal components are used instead."""
PILOT_FRAMES = 2048
"""Most frames that components are fitted to."""


@dataclass(frozen=True)
class Components:
    """Principal components of a layer.

    Attributes:
        mean: float32 (D,).
        directions: float32 (D, C), orthonormal.
        variance: share of the pilot's variance that they keep, 0–1.
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    variance: float

    @classmethod
    def fit(cls, frames: npt.NDArray[np.float32], dim: int) -> "Components":
        """Fit at most ``dim`` components to frames (n, D)."""
        mean = frames.mean(0)
        _, scales, directions = np.linalg.svd(frames - mean, full_matrices=False)
        power = scales.astype(np.float64) ** 2
        kept = float(power[:dim].sum() / power.sum()) if power.sum() else 1.0
        return cls(mean, np.ascontiguousarray(directions[:dim].T), kept)

    def apply(self, frames: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return frames (n, D) in components (n, C)."""
        reduced: npt.NDArray[np.floating] = (frames - self.mean) @ self.directions
        return reduced


def fit_components(
    clips: Iterable[Clip], layers: Iterable[str], *, max_dim: int = MAX_DIM
) -> Mapping[str, Components]:
    """Fit components of the layers that have more than ``max_dim`` features.

    Args:
        clips: clips spread over the data; the first frames of each are used.
        layers: layers to look at.
        max_dim: most components.
    """
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    rest = iter(clips)
    first = next(rest, None)
    wide = [] if first is None else [k for k in layers if first.values[k].shape[1] > max_dim]
    if first is None or not wide:
        return {}
    pilot = [first, *rest]
    share = max(1, PILOT_FRAMES // len(pilot))
    for clip in pilot:
        for layer in wide:
            frames = clip.values[layer]
            step = max(1, len(frames) // share)
            found.setdefault(layer, []).append(frames[::step][:share])
    return {layer: Components.fit(np.concatenate(parts), max_dim) for layer, parts in found.items()}
