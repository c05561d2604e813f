"""Folds of cross-validation over groups such as speakers or files, never over their frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError


@dataclass(frozen=True)
class Division:
    """Division of a subject's clips into folds.

    Attributes:
        folds: fold of each clip, int64 (n,).
        num_folds: F.
    """

    folds: npt.NDArray[np.int64]
    num_folds: int


def make_folds(
    groups: Sequence[str], sizes: Sequence[int], *, num_folds: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Assign each item to a fold; items of a group share one, and folds have similar sizes.

    Groups are dealt to the smallest fold so far, the largest first; ties are broken by the seed.

    Args:
        groups: group of each item, such as its speaker.
        sizes: samples of each item.
        num_folds: number of folds, at least 2.
        seed: seed of the order of groups of equal size.

    Returns:
        The fold of each item, int64.

    Raises:
        UsageError: there are fewer groups than folds.
    """
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if num_folds < 2 or len(names) < num_folds:
        raise UsageError(
            f"{num_folds} folds need at least 2 and as many groups (speakers or files); there are "
            f"{len(names)} groups: pass fewer folds or other groups"
        )
    totals = np.bincount(index, weights=np.asarray(sizes, dtype=np.float64))
    ties = np.random.default_rng(seed).permutation(len(names))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    filled = np.zeros(num_folds)
    taken = np.zeros(num_folds, dtype=np.int64)
    for group in np.lexsort((ties, -totals)):
        fold = int(np.lexsort((taken, filled))[0])
        fold_of_group[group] = fold
        filled[fold] += totals[group]
        taken[fold] += 1
    assigned: npt.NDArray[np.int64] = fold_of_group[index]
    return assigned
