"""Policies: selection of the exemplars that a memory keeps within its bytes.

Each exemplar has a rank, and lower ranks are kept longer. The functions return which of the
exemplars, in any order, stay: bool (m,).

Legend: m exemplars, C classes.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from seit.augment import philox4x32
from seit.stream import sample_at

Policy = Literal["reservoir", "balanced", "greedy", "herding", "ring"]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
LAST_RANK = (1 << 63) - 1
"""Above every rank of an exemplar."""
_DRAW_STREAM = 0x72657061794472
_REPLAY_WORD = 0x7265706C
"""Counter word that separates these draws from those of augmentations."""
_LOW32 = 0xFFFFFFFF


def priorities(rows: Ints, *, seed: int) -> Ints:
    """Return a random 63-bit rank int64 (m,) for each row, a function of (seed, row) alone.

    The k lowest of any set of rows are a uniform sample of it, in any order of arrival: reservoir
    sampling (Vitter 1985) by random keys, without a counter or generator state to save.
    """
    positions = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
    counter = (
        torch.zeros_like(positions),
        torch.full_like(positions, _REPLAY_WORD),
        positions & _LOW32,
        positions >> 32 & _LOW32,
    )
    high, low, _, _ = philox4x32(counter, (seed & _LOW32, seed >> 32 & _LOW32))
    ranks: Ints = ((high << 31) | (low >> 1)).numpy()
    return ranks


def drawn(n: int, held: int, *, seed: int, step: int) -> Ints:
    """Draw a batch of ``held`` exemplars, int64 (n,), as a function of the arguments alone.

    None occurs twice unless n > held; then each occurs ⌊n/held⌋ or ⌈n/held⌉ times.
    """
    parts = [
        sample_at(
            np.arange(min(held, n - start)),
            held,
            seed=seed ^ _DRAW_STREAM,
            epoch=(step << 16) + number,
        )
        for number, start in enumerate(range(0, n, held) if held else ())
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def within_budget(ranks: Ints, costs: Ints, *, budget: int) -> Bools:
    """Return the longest run of lowest ranks whose costs sum to at most ``budget`` bytes."""
    return within_shares(ranks, np.zeros_like(ranks), costs, share=budget)


def within_shares(ranks: Ints, labels: Ints, costs: Ints, *, share: int) -> Bools:
    """Return, per class, the longest run of lowest ranks within ``share`` bytes."""
    order = np.lexsort((ranks, labels))
    total = np.cumsum(costs[order])
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    before = np.repeat((total - costs[order])[starts], np.diff([*starts, len(order)]))
    keep = np.empty(len(order), dtype=bool)
    keep[order] = total - before <= share
    return keep


def greedily_balanced(
    ranks: Ints, labels: Ints, costs: Ints, *, num_held: int, budget: int, seen: Bools
) -> Bools:
    """Take exemplars one by one from ``num_held`` on, keeping classes balanced.

    An exemplar of a new class, or of a class below its equal share of the budget, is taken. Until
    there is room, the largest class of several exemplars, or else the largest, drops its exemplar
    of highest rank, in effect a random one. This is the sampler of GDumb (Prabhu et al., ECCV 2020,
    algorithm 1), in bytes.

    Args:
        ranks: int64 (m,), those held first.
        labels: int64 (m,).
        costs: int64 (m,), bytes.
        num_held: number of exemplars held already, within the budget.
        budget: bytes.
        seen: bool (C,), classes seen; updated in place.
    """
    keep = np.arange(len(ranks)) < num_held
    by_class = np.zeros(len(seen), dtype=np.int64)
    np.add.at(by_class, labels[:num_held], costs[:num_held])
    for place in range(num_held, len(ranks)):
        label, cost = int(labels[place]), int(costs[place])
        is_new = not seen[label]
        seen[label] = True
        is_small = by_class[label] * int(seen.sum()) < budget
        if cost > budget or not (is_new or is_small):
            continue
        while by_class.sum() + cost > budget:
            counts = np.bincount(labels[keep], minlength=len(seen))
            among = np.where(counts > 1, by_class, 0) if (counts > 1).any() else by_class
            members = np.flatnonzero(keep & (labels == among.argmax()))
            worst = members[ranks[members].argmax()]
            keep[worst] = False
            by_class[labels[worst]] -= costs[worst]
        keep[place] = True
        by_class[label] += cost
    return keep
