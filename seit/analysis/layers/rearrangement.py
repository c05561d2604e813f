"""Rearrangement of a target among all samples of a fold, which shows what chance gives.

Legend: m samples of a clip, N samples of a fold, K features of a target, P nulls.
"""

import bisect

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.folds import Division
from seit.analysis.layers.targets import Floats, Target


class Rearrangement:
    """P permutations of the target's samples within each fold, fixed before any clip is read.

    They depend on the seed, the folds and the sizes of the clips alone, so that a pass that was
    interrupted continues with the same ones. Memory is 8 · P · N bytes for each fold.

    Args:
        target: what layers are compared with.
        division: folds of the clips.
        num_nulls: P.
        seed: seed of the permutations.
    """

    def __init__(self, target: Target, division: Division, *, num_nulls: int, seed: int) -> None:
        self._target, self._folds = target, division.folds
        self._starts: dict[int, int] = {}
        self._rows: list[list[int]] = [[] for _ in range(division.num_folds)]
        counts = [0] * division.num_folds
        for row, fold in enumerate(division.folds.tolist()):
            if size := target.size(row):
                self._starts[row] = counts[fold]
                self._rows[fold].append(row)
                counts[fold] += size
        self._firsts = [[self._starts[row] for row in rows] for rows in self._rows]
        self._orders = [
            np.random.default_rng((seed, fold)).permuted(
                np.tile(np.arange(count), (num_nulls, 1)), axis=1
            )
            for fold, count in enumerate(counts)
        ]

    def samples(self, row: int, count: int) -> Floats:
        """Return the targets (P, m, K) that a clip's samples get in each null.

        Args:
            row: number of the clip.
            count: m; below the target's size if a layer has fewer frames.
        """
        fold, size = int(self._folds[row]), self._target.size(row)
        places = self._starts[row] + np.arange(count) * size // count
        return np.stack(
            [self._drawn(fold, order[places], count / size) for order in self._orders[fold]]
        )

    def _drawn(self, fold: int, places: npt.NDArray[np.int64], share: float) -> Floats:
        """Return the targets (m, K) at some places of a fold."""
        found = []
        for place in places.tolist():
            number = bisect.bisect_right(self._firsts[fold], place) - 1
            row = self._rows[fold][number]
            found.append(self._target.at(row, place - self._starts[row], share))
        return np.stack(found)
