"""Pareto front: what is not beaten in cost and quality at once.

A point is kept if no other costs at most as much and is at least as good, with one of both strict.
Equal points do not beat each other.
"""

from collections.abc import Sequence
from itertools import groupby


def pareto_front(costs: Sequence[float], qualities: Sequence[float]) -> list[bool]:
    """Return which points are on the front, in one pass over the sorted costs.

    Args:
        costs: finite; lower is better.
        qualities: finite; higher is better.
    """
    kept = [False] * len(costs)
    best = float("-inf")
    order = sorted(range(len(costs)), key=lambda index: costs[index])
    for _, group in groupby(order, key=lambda index: costs[index]):
        equal = list(group)
        top = max(qualities[index] for index in equal)
        if top > best:
            best = top
            for index in equal:
                kept[index] = qualities[index] == top
    return kept
