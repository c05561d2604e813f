"""Similarity of two samples: the mean distance of their codebook vectors, place by place.

Vectors are averaged over 3×3 tokens first: single tokens jump when a picture is encoded again.
The score is 1 − d / s, d being the mean squared distance of the two samples and s the sum of their
own variances: 1 for the same vectors everywhere, about 0 for samples that have nothing to do with
each other (Lin's concordance coefficient, "A concordance correlation coefficient to evaluate
reproducibility", 1989, with vectors for numbers). A picture is also compared with the other one
enlarged by 1/14 around its center, and the other way round, as after a slight crop.

Shape letters: n pairs, H W grid, C codebook dim.
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
    """Scores float32 (n,) of pairs, at most 1.

    Args:
        first_nHW: ids of the first sample of each pair.
        second_nHW: ids of the second.
        embedding: what ids stand for.
        mirrored: (n,), whether the second is looked at in a mirror.
        zooms: whether one may be an enlarged part of the other.
        enough: a score from which on a pair is compared no further.
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
    """Means over windows of 3×3 tokens, or fewer where a side is shorter."""
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
    """The score with ``other`` resampled at steps of ``zoom``, where it has something there."""
    down, rows = _resampling(one_nHWC.shape[1], zoom)
    across, columns = _resampling(one_nHWC.shape[2], zoom)
    moved = np.einsum("ih,nhwc->niwc", down, other_nHWC, optimize=True)
    moved = np.einsum("jw,niwc->nijc", across, moved, optimize=True)
    return _score(one_nHWC[:, rows, columns], moved)


@lru_cache
def _resampling(side: int, zoom: float) -> tuple[Floats, slice]:
    """Weights (places, side) of linear resampling around the center, and the places it reaches."""
    places = (np.arange(side) - (side - 1) / 2) * zoom + (side - 1) / 2
    inside = np.flatnonzero((places >= 0) & (places <= side - 1))
    places = places[inside]
    below = np.minimum(places.astype(int), max(side - 2, 0))
    above = np.minimum(below + 1, side - 1)
    weights = np.zeros((len(inside), side), dtype=np.float32)
    rows = np.arange(len(inside))
    np.add.at(weights, (rows, below), (1 - (places - below)).astype(np.float32))
    np.add.at(weights, (rows, above), (places - below).astype(np.float32))
    return weights, slice(int(inside[0]), int(inside[-1]) + 1)
