"""Reduction of wide layers to their principal components, without looking at any target.

Legend: n frames, D features, C components.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.subjects.base import Clip, Subject

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


class Pilot:
    """A few frames of each wide layer, taken clip by clip, that components are fitted to.

    Memory is 4 · 2,048 · D bytes for each layer: a clip's other frames are not held.

    Args:
        layers: layers to look at.
        num_clips: clips that will be added, spread over the data.
        max_dim: features above which a layer is wide, and most components.
    """

    def __init__(self, layers: Iterable[str], *, num_clips: int, max_dim: int) -> None:
        self._layers, self._max_dim = tuple(layers), max_dim
        self._share = max(1, PILOT_FRAMES // max(1, num_clips))
        self._frames: dict[str, list[npt.NDArray[np.float32]]] = {}

    def add(self, clip: Clip) -> bool:
        """Take frames of a clip; returns whether any layer is wide."""
        for layer in self._layers:
            frames = clip.values[layer]
            if frames.shape[1] > self._max_dim:
                step = max(1, len(frames) // self._share)
                chosen = frames[::step][: self._share].copy()
                self._frames.setdefault(layer, []).append(chosen)
        return bool(self._frames)

    def components(self) -> Mapping[str, Components]:
        """Fit components of the wide layers."""
        return {
            layer: Components.fit(np.concatenate(parts), self._max_dim)
            for layer, parts in self._frames.items()
        }


def fit_components(
    subject: Subject, rows: Sequence[int], layers: Iterable[str], *, max_dim: int = MAX_DIM
) -> Mapping[str, Components]:
    """Fit components of the layers that have more than ``max_dim`` features; see `Pilot`.

    Args:
        subject: the network with its inputs.
        rows: numbers of clips spread over the data.
        layers: layers to look at.
        max_dim: most components.
    """
    pilot = Pilot(layers, num_clips=len(rows), max_dim=max_dim)
    for clip in subject.clips(rows):
        if not pilot.add(clip):
            break
    return pilot.components()
