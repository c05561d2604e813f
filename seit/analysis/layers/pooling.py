"""Frames of a layer that belong to a stretch of time, and their mean.

Legend: T frames, D features.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Part = Literal["whole", "middle"]
"""Frames of a span to average: all, or the middle third, where a phone is purest (Pasad et al.,
arXiv 2211.03929)."""


def frames_of(
    start: float, end: float, *, rate: float, num_frames: int, part: Part
) -> tuple[int, int]:
    """Return the first frame of a span and the one after the last.

    Args:
        start: seconds from the start of the clip.
        end: seconds, after the start.
        rate: frames per second.
        num_frames: frames of the clip, T.
        part: which of the span's frames count.
    """
    first = min(math.floor(start * rate), num_frames - 1)
    stop = max(first + 1, min(math.ceil(end * rate), num_frames))
    if part == "whole":
        return first, stop
    cut = (stop - first + 1) // 3
    if stop - first - 2 * cut < 1:
        middle = (first + stop - 1) // 2
        return middle, middle + 1
    return first + cut, stop - cut


def averaged(frames: npt.NDArray[np.float32], first: int, stop: int) -> npt.NDArray[np.float32]:
    """Return the mean (D,) of frames (T, D) from ``first`` to before ``stop``."""
    mean: npt.NDArray[np.float32] = frames[first:stop].mean(0)
    return mean


def resampled(frames: npt.NDArray[np.float32], num_frames: int) -> npt.NDArray[np.float32]:
    """Return frames (T, D) averaged to ``num_frames``, at most T, of nearly equal length."""
    edges = np.linspace(0, len(frames), num_frames + 1).round().astype(np.int64)
    sums = np.add.reduceat(frames, edges[:-1], axis=0)
    means: npt.NDArray[np.float32] = (sums / np.diff(edges)[:, None]).astype(np.float32)
    return means
