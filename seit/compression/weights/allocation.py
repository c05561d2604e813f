"""Choice of one option for each layer, of least total cost within a budget of bytes: exact.

The multiple-choice knapsack problem, solved by dynamic programming over the sizes that occur: after
each layer, only the combinations remain that no smaller one matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class _Front:
    """Combinations for the first layers, none of them larger and costlier than another.

    Attributes:
        sizes: bytes, ascending.
        costs: costs, descending.
        option: the last layer's option.
        before: index of the combination without the last layer.
    """

    sizes: npt.NDArray[np.int64]
    costs: npt.NDArray[np.float64]
    option: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


def allocate(
    sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], *, budget: int
) -> list[int] | None:
    """Return the index of each layer's option in the cheapest combination that fits.

    Args:
        sizes: bytes of the options of each layer.
        costs: their costs, in the same order.
        budget: the largest sum of bytes.

    Returns:
        The options; None if even the smallest ones do not fit.
    """
    rest = np.cumsum([0, *(min(own) for own in reversed(sizes))])[::-1]
    nothing = np.zeros(1, np.int64)
    fronts = [_Front(nothing, np.zeros(1), nothing, nothing)]
    for layer, (own, prices) in enumerate(zip(sizes, costs, strict=True)):
        room = budget - int(rest[layer + 1])
        fronts.append(_extended(fronts[-1], np.array(own), np.array(prices), room))
        if not len(fronts[-1].sizes):
            return None
    at, chosen = len(fronts[-1].sizes) - 1, []  # the last one is the cheapest
    for front in reversed(fronts[1:]):
        chosen.append(int(front.option[at]))
        at = int(front.before[at])
    return chosen[::-1]


def _extended(
    front: _Front, sizes: npt.NDArray[np.int64], costs: npt.NDArray[np.float64], room: int
) -> _Front:
    """Return the combinations with one more layer that take at most ``room`` bytes."""
    total = (front.sizes[:, None] + sizes).ravel()
    price = (front.costs[:, None] + costs).ravel()
    order = np.lexsort((price, total))
    order = order[total[order] <= room]
    best = np.minimum.accumulate(price[order])
    kept = order[np.diff(best, prepend=np.inf) < 0] if len(order) else order
    before, option = np.divmod(kept, len(sizes))
    return _Front(total[kept], price[kept], option, before)
