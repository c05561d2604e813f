"""Inner loops of fitting, compiled by numba: counting turns, and a pass of AdaGrad.

One thread, a fixed order and no fast-math: the same tokens give the same tables on a machine.
"""

import math

import numpy as np
from numba import njit

from seit.shards.jit import compiled


@njit(inline="always")
def _neighbours(ids_L, index, width, num_codes, out):
    column = index % width
    out[0] = ids_L[index - 1] if column > 0 else num_codes
    out[1] = ids_L[index - width] if index >= width else num_codes
    out[2] = ids_L[index - width + 1] if index >= width and column + 1 < width else num_codes


@njit(inline="always")
def _walk(path, levels, bases, entries, turns):
    """Fill in the inner nodes on the way to a leaf, and the turn at each."""
    below, leaf, step = 0, 0, 0
    for depth in levels:
        below += depth
    for group in range(len(levels)):
        depth = levels[group]
        below -= depth
        branch = (path >> below) & ((1 << depth) - 1)
        start, entry = bases[group] + (leaf << depth), 1
        for level in range(depth - 1, -1, -1):
            turn = (branch >> level) & 1
            entries[step], turns[step] = start + entry, turn
            entry = 2 * entry + turn
            step += 1
        leaf = (leaf << depth) + branch
    return step


@compiled
def count(tokens, width, paths, levels, bases, num_codes, rights, lefts, totals):
    """Count the turns at each inner node: by neighbor (D, K+1, R), and in total (2, R)."""
    near, entries, turns = np.empty(3, np.int64), np.empty(32, np.int64), np.empty(32, np.int64)
    first_size = 1 << levels[0]
    for sample in range(len(tokens)):
        ids = tokens[sample]
        for index in range(len(ids)):
            _neighbours(ids, index, width, num_codes, near)
            steps = _walk(paths[ids[index]], levels, bases, entries, turns)
            for step in range(steps):
                entry = entries[step]
                totals[turns[step], entry] += 1
                counts = rights if turns[step] else lefts
                for number in range(3 if entry < first_size else 2):
                    counts[number, near[number], entry] += 1


@compiled
def descend(
    tokens, order, width, paths, levels, bases, num_codes, weights, evidence, bias, seen, rate
):
    """Run one pass of AdaGrad over ``order``; updates weights, evidence, bias and seen."""
    near, entries, turns = np.empty(3, np.int64), np.empty(32, np.int64), np.empty(32, np.int64)
    first_size = 1 << levels[0]
    for sample in order:
        ids = tokens[sample]
        for index in range(len(ids)):
            _neighbours(ids, index, width, num_codes, near)
            steps = _walk(paths[ids[index]], levels, bases, entries, turns)
            for step in range(steps):
                entry = entries[step]
                score = bias[entry]
                near_ones = 3 if entry < first_size else 2
                for number in range(near_ones):
                    score += weights[number, near[number], entry]
                slope = 1 / (1 + math.exp(-score)) - turns[step]
                square = slope * slope
                seen[entry] += square
                bias[entry] -= rate * slope / math.sqrt(seen[entry])
                for number in range(near_ones):
                    neighbour = near[number]
                    evidence[number, neighbour, entry] += square
                    weights[number, neighbour, entry] -= (
                        rate * slope / math.sqrt(evidence[number, neighbour, entry])
                    )


@compiled
def count_values(values):
    """Count how often each int8 occurs in ``values``: int64 (256,), −128 first."""
    counts = np.zeros(256, np.int64)
    for index in range(len(values)):
        counts[np.int64(values[index]) + 128] += 1
    return counts
