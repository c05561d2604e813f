"""Policies: which exemplars a memory of so many bytes keeps.

Each exemplar has a rank, and lower ranks are kept longer. Every function here tells, of exemplars
in any order, which stay: bool (m,).

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
"""No exemplar has so high a rank."""
_DRAW_STREAM = 0x72657061794472
_REPLAY_WORD = 0x7265706C
"""The word of the counter that sets these draws apart from augmentations'."""
_LOW32 = 0xFFFFFFFF


def priorities(rows: Ints, *, seed: int) -> Ints:
    """A random rank int64 (m,) of each row, 63 bits, a function of (seed, row) alone.

    The k lowest of any set of rows are a uniform sample of it, whenever each was added: reservoir
    sampling (Vitter 1985) by random keys, which needs no count of what went by and no generator
    whose state would have to be saved.
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
    """Which of ``held`` exemplars a batch takes, int64 (n,), a function of the arguments alone.

    None comes twice unless n > held; then each comes ⌊n/held⌋ or ⌈n/held⌉ times.
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
    """The longest run of lowest ranks whose costs, in bytes, do not sum to more than ``budget``."""
    return within_shares(ranks, np.zeros_like(ranks), costs, share=budget)


def within_shares(ranks: Ints, labels: Ints, costs: Ints, *, share: int) -> Bools:
    """Of each class the longest run of lowest ranks that costs no more than ``share`` bytes."""
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

    One of a new class, or of a class below its equal share of the budget, is taken; while there is
    no room, the largest class gives up its exemplar of the highest rank, as good as a random one.
    The sampler of GDumb (Prabhu et al., ECCV 2020, algorithm 1), in bytes.

    Args:
        ranks: int64 (m,), those held first.
        labels: int64 (m,).
        costs: int64 (m,), bytes.
        num_held: how many are held already; they are within the budget.
        budget: bytes.
        seen: bool (C,), classes met; those of the others are marked in it.
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
            members = np.flatnonzero(keep & (labels == by_class.argmax()))
            worst = members[ranks[members].argmax()]
            keep[worst] = False
            by_class[labels[worst]] -= costs[worst]
        keep[place] = True
        by_class[label] += cost
    return keep
