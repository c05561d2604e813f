"""Signatures of samples: their coarse layout in codebook space, in 128 bytes each.

A grid is embedded by the codebook and averaged over 8×8 regions. The signature is the direction of
these averages from their mean over the corpus, along the main axes of the corpus, each divided by
the square root of its spread (half-whitened, so that neither a single axis nor the noise of the
last ones dominates). Re-encoding or a slight crop hardly changes it; the cosine of two signatures
shows whether two samples are worth a closer look.

Legend: N samples, n of a chunk, H W grid, P Q regions, C codebook dim, F = P·Q·C, D signature dim.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seit.analysis.duplicates.vectors import Embedding
from seit.shards import Kind, Split, Store

REGIONS = 8
"""Regions along each side of a grid."""
DIMENSIONS = 64
_FIT_SAMPLES = 4096
_CHUNK_VALUES = 1 << 23
_LEAST_SPREAD = 1e-4
"""Share of the largest axis below which an axis is noise."""

Floats = npt.NDArray[np.float32]


class Layouts:
    """Signatures of the samples of a store, on axes fitted to samples of all splits.

    Args:
        store: store of the samples.
        embedding: embedding of ids.
    """

    def __init__(self, store: Store, embedding: Embedding) -> None:
        self._embedding = embedding
        height, width, dim = embedding.shape
        self._rows = _bounds(height)
        self._columns = _bounds(width)
        self._chunk = max(1, _CHUNK_VALUES // (height * width * dim))
        averages_NF = np.concatenate([part.reshape(len(part), -1) for part in self._fit_set(store)])
        self._mean_F = averages_NF.mean(axis=0)
        _, spreads, axes = np.linalg.svd(averages_NF - self._mean_F, full_matrices=False)
        kept = spreads[:DIMENSIONS] > _LEAST_SPREAD * max(float(spreads[0]), 1e-12)
        scales = np.sqrt(spreads[:DIMENSIONS][kept])
        self._axes_FD: Floats = (axes[:DIMENSIONS][kept].T / scales).astype(np.float32)

    def signatures(self, split: Split, *, mirrored: bool) -> npt.NDArray[np.float16]:
        """Return signatures float16 (N, D) of a split, each of length 1, or 0 without a layout.

        ``mirrored`` returns those of the mirrored samples, taking each token as its own mirror
        image, which holds for the average over a region.
        """
        columns = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.TOKENS))
        parts = [
            self._signature(part, mirrored) for tokens in columns for part in self._cut(tokens)
        ]
        empty = np.empty((0, self._axes_FD.shape[1]), dtype=np.float16)
        return np.concatenate([empty, *parts])

    def _signature(
        self, tokens_nHW: npt.NDArray[np.unsignedinteger], mirrored: bool
    ) -> npt.NDArray[np.float16]:
        averages = self._average(tokens_nHW)
        if mirrored:
            averages = averages[:, :, ::-1]
        signature_nD = (averages.reshape(len(averages), -1) - self._mean_F) @ self._axes_FD
        lengths = np.linalg.norm(signature_nD, axis=1, keepdims=True)
        unit_nD: npt.NDArray[np.float16] = (signature_nD / np.maximum(lengths, 1e-12)).astype(
            np.float16
        )
        return unit_nD

    def _fit_set(self, store: Store) -> Iterator[Floats]:
        total = store.card.samples
        count = min(total, _FIT_SAMPLES)
        chosen = np.arange(count, dtype=np.int64) * total // max(count, 1)
        first = 0
        for split in store.values():
            inside = chosen[(chosen >= first) & (chosen < first + len(split))] - first
            for start in range(0, len(inside), self._chunk):
                yield self._average(split.read_tokens(inside[start : start + self._chunk]))
            first += len(split)

    def _cut(
        self, tokens_NHW: npt.NDArray[np.unsignedinteger]
    ) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        for start in range(0, len(tokens_NHW), self._chunk):
            yield tokens_NHW[start : start + self._chunk]

    def _average(self, tokens_nHW: npt.NDArray[np.unsignedinteger]) -> Floats:
        """Return the means of regions: float32 (n, P, Q, C)."""
        vectors = self._embedding(tokens_nHW)
        for axis, bounds in ((1, self._rows), (2, self._columns)):
            sizes = np.diff(bounds).astype(np.float32)
            vectors = np.add.reduceat(vectors, bounds[:-1], axis=axis)
            vectors /= sizes.reshape([-1 if axis == place else 1 for place in range(4)])
        return vectors


def _bounds(side: int) -> npt.NDArray[np.intp]:
    """Return the starts of the regions along a side, and its end."""
    return np.linspace(0, side, min(REGIONS, side) + 1).round().astype(np.intp)


def similar_rows(
    first_ND: npt.NDArray[np.float16],
    second_ND: npt.NDArray[np.float16],
    *,
    least: float,
    block: int = 2048,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]]:
    """Yield rows with a cosine of at least ``least``: (first, second, cosine), by blocks."""
    for (top, bottom), (left, right) in _tiles(len(first_ND), len(second_ND), block):
        cosines = (
            first_ND[top:bottom].astype(np.float32) @ second_ND[left:right].astype(np.float32).T
        )
        rows, columns = np.nonzero(cosines >= least)
        yield rows + top, columns + left, cosines[rows, columns]


def _tiles(
    rows: int, columns: int, block: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for down in pairwise([*range(0, rows, block), rows]):
        for across in pairwise([*range(0, columns, block), columns]):
            yield down, across
