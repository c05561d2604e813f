"""Codes of a store: how often each occurs, its picture, and those nearest to it.

Legend: L levels, K codes, C codebook dim.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.browser.catalog import Catalog
from seit.analysis.browser.site import Site
from seit.errors import DamagedError
from seit.shards import Kind

MAX_COUNTED = 1 << 24
"""Most tokens counted; of more, blocks evenly spaced over all splits are."""
_SIDE = 4
_NEIGHBORS = 12
_MAX_TABLE = 1 << 24


@dataclass(frozen=True)
class Usage:
    """Use of codes in a store.

    Attributes:
        counts: int64 (L, K), occurrences of each code.
        by_class: int64 (L, classes, K), occurrences in the samples of a class; None if the table
            would be too large.
        samples: samples counted.
        total: samples of the store.
    """

    counts: npt.NDArray[np.int64]
    by_class: npt.NDArray[np.int64] | None
    samples: int
    total: int

    def entropy(self, level: int) -> float:
        """Return the entropy of the codes of a level, in bits per token."""
        counts = self.counts[level]
        shares = counts[counts > 0] / max(int(counts.sum()), 1)
        return float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0

    def lift(self, label: int, level: int) -> npt.NDArray[np.float64]:
        """Return how many times more often codes of a level occur in a class than in all: (K,)."""
        assert self.by_class is not None
        own, all_codes = self.by_class[level, label], self.counts[level]
        expected = all_codes * (own.sum() / max(int(all_codes.sum()), 1))
        lifts: npt.NDArray[np.float64] = (own + 1) / (expected + 1)
        return lifts


def draw_codes(site: Site, level: int, codes: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Draw codes, each all over a small grid; other levels have the code nearest to zero."""
    codebook = site.store.codebook.reshape(-1, *site.store.codebook.shape[-2:])
    neutral = np.linalg.norm(codebook, axis=-1).argmin(axis=1)
    layout, levels = site.store.card.layout, len(codebook)
    is_audio = site.modality == "audio"
    side = layout.grid[0] // levels if is_audio else _SIDE
    width = min(layout.grid[1], side if is_audio else _SIDE)
    grids = np.empty((len(codes), levels, side, width), dtype=layout.dtype)
    grids[:] = neutral[None, :, None, None]
    grids[:, level] = codes[:, None, None]
    pictures = site.painter.draw(grids.reshape(len(codes), levels * side, width))
    if is_audio or site.painter.remark:
        return pictures
    # The middle of the picture, away from what a decoder does at its edges.
    rows, columns = pictures.shape[1] // 4, pictures.shape[2] // 4
    return np.ascontiguousarray(pictures[:, rows:-rows, columns:-columns])


def nearest(codes_KC: npt.NDArray[np.float32], code: int) -> list[tuple[int, float]]:
    """Return the codes nearest to one by Euclidean distance, and their distances."""
    distances = np.linalg.norm(codes_KC - codes_KC[code], axis=1)
    distances[code] = np.inf
    order = np.argsort(distances, kind="stable")[: min(_NEIGHBORS, len(codes_KC) - 1)]
    return [(int(one), float(distances[one])) for one in order]


def count_codes(site: Site) -> Usage:
    """Count the codes of a store, or of evenly spaced blocks of a large one."""
    store, layout = site.store, site.store.card.layout
    levels, num_codes = store.levels, layout.num_codes
    counts = np.zeros((levels, num_codes), dtype=np.int64)
    table = (levels, len(store.classes), num_codes)
    is_small = 0 < math.prod(table) <= _MAX_TABLE
    by_class = np.zeros(table, np.int64) if is_small else None
    stride = max(1, -(-store.card.samples * layout.length // MAX_COUNTED))
    samples = 0
    for name in store:
        catalog = site.catalog(name)
        for tokens, of_class, labels in _counted(catalog, stride):
            samples += len(tokens)
            for level, part in enumerate(np.split(tokens, levels, axis=1)):
                counts[level] += np.bincount(part.reshape(-1), minlength=num_codes)
                if by_class is not None:
                    ids = part.reshape(len(part), -1)[of_class]
                    cells = labels[:, None] * num_codes + ids
                    own = by_class[level]
                    own += np.bincount(cells.reshape(-1), minlength=own.size).reshape(own.shape)
    return Usage(counts, by_class, samples, store.card.samples)


def _counted(
    catalog: Catalog, stride: int
) -> Iterator[tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the ids (N, H, W) of every ``stride``-th intact block, and pairs of its labels.

    A pair is the number of a sample of the block and a class that it has: int64 (n,) each.
    """
    labels, sets = catalog.labels, catalog.label_sets
    for number, (shard, block) in enumerate(catalog.split.blocks()):
        if number % stride:
            continue
        try:
            tokens = shard.open_block(block, Kind.TOKENS)
        except DamagedError as error:
            catalog.damage[number] = str(error)
            continue
        rows = shard.rows_of(block)
        if sets is None:
            own = labels[rows.start : rows.stop]
            samples = np.flatnonzero(own >= 0)
            yield tokens, samples, own[samples].astype(np.int64)
        else:
            yield tokens, *np.nonzero(sets.rows(np.arange(rows.start, rows.stop)) == 1)
