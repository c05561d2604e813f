"""Similarity of two samples: mean distance of their codebook vectors, position by position.

Vectors are first averaged over 3×3 tokens, since single tokens change when a picture is re-encoded.
The score is 1 − d / s, with d the mean squared distance of the two samples and s the sum of their
variances: 1 for identical vectors, about 0 for unrelated samples (Lin's concordance coefficient, "A
concordance correlation coefficient to evaluate reproducibility", 1989, with vectors for numbers).
Each picture is also compared with the other enlarged by 1/14 around its center, for slight crops.

Legend: n pairs, H W grid, C codebook dim.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.vectors import Embedding

Floats = npt.NDArray[np.float32]
_WINDOW = 3
_ZOOMS = (14 / 15, 15 / 14)
_CHUNK_VALUES = 1 << 22


def scores(
    first_nHW: npt.NDArray[np.unsignedinteger],
    second_nHW: npt.NDArray[np.unsignedinteger],
    embedding: Embedding,
    *,
    mirrored: npt.NDArray[np.bool_],
    zooms: bool,
    enough: float,
) -> Floats:
    """Return scores float32 (n,) of pairs, at most 1.

    Args:
        first_nHW: ids of the first sample of each pair.
        second_nHW: ids of the second.
        embedding: embedding of ids.
        mirrored: (n,), whether the second is mirrored.
        zooms: whether one may be an enlarged part of the other.
        enough: score from which on a pair is not compared further.
    """
    step = max(1, _CHUNK_VALUES // math.prod(embedding.shape))
    found = np.empty(len(first_nHW), dtype=np.float32)
    for start in range(0, len(found), step):
        rows = slice(start, start + step)
        one, other = (_smooth(embedding(ids[rows])) for ids in (first_nHW, second_nHW))
        flipped = mirrored[rows]
        other[flipped] = other[flipped][:, :, ::-1]
        best = _score(one, other)
        for zoom in _ZOOMS if zooms else ():
            poor = np.flatnonzero(best < enough)
            best[poor] = np.maximum(best[poor], _zoomed_score(one[poor], other[poor], zoom))
        found[rows] = best
    return found


def _smooth(vectors_nHWC: Floats) -> Floats:
    """Return means over windows of 3×3 tokens, or fewer if a side is shorter."""
    for axis in (1, 2):
        window = min(_WINDOW, vectors_nHWC.shape[axis])
        parts = np.lib.stride_tricks.sliding_window_view(vectors_nHWC, window, axis=axis)
        vectors_nHWC = parts.mean(axis=-1)
    return vectors_nHWC


def _score(one_nHWC: Floats, other_nHWC: Floats) -> Floats:
    places = (1, 2)
    distance = ((one_nHWC - other_nHWC) ** 2).mean(axis=places).sum(axis=-1)
    spread = one_nHWC.var(axis=places).sum(axis=-1) + other_nHWC.var(axis=places).sum(axis=-1)
    score: Floats = np.where(
        distance > 0, 1 - distance / np.maximum(spread, 1e-12), np.float32(1)
    ).astype(np.float32)
    return score


def _zoomed_score(one_nHWC: Floats, other_nHWC: Floats, zoom: float) -> Floats:
    """Return the score with ``other`` resampled at steps of ``zoom``, over the overlap."""
    down, rows = _resampling(one_nHWC.shape[1], zoom)
    across, columns = _resampling(one_nHWC.shape[2], zoom)
    moved = np.einsum("ih,nhwc->niwc", down, other_nHWC, optimize=True)
    moved = np.einsum("jw,niwc->nijc", across, moved, optimize=True)
    return _score(one_nHWC[:, rows, columns], moved)


@lru_cache
def _resampling(side: int, zoom: float) -> tuple[Floats, slice]:
    """Return weights (places, side) of linear resampling around the center, and its range.

    Two places cannot be enlarged: both would lie outside.
    """
    places = (np.arange(side) - (side - 1) / 2) * zoom + (side - 1) / 2
    inside = np.flatnonzero((places >= 0) & (places <= side - 1))
    if not len(inside):
        return np.eye(side, dtype=np.float32), slice(0, side)
    places = places[inside]
    below = np.minimum(places.astype(int), max(side - 2, 0))
    above = np.minimum(below + 1, side - 1)
    weights = np.zeros((len(inside), side), dtype=np.float32)
    rows = np.arange(len(inside))
    np.add.at(weights, (rows, below), (1 - (places - below)).astype(np.float32))
    np.add.at(weights, (rows, above), (places - below).astype(np.float32))
    return weights, slice(int(inside[0]), int(inside[-1]) + 1)
