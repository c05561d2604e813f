"""Inner loops of the `context` coder, compiled by numba.

Numba rather than C: installing needs no compiler, and the machine code is made once for the CPU at
hand and cached next to the package. Each core decodes four samples at a time, since the steps of
one depend on each other. Indices are unsigned because numba spends instructions on the sign of
others. Types are left to numba's inference.

Legend: N samples, L = H·W tokens, K codes, R entries of a row.
"""

import numpy as np
from numba import int64, njit, uint64

from seit.shards.context.tables import PROBABILITY_BITS
from seit.shards.jit import compiled

LANES = 4
"""Samples decoded at a time."""
_MASK = uint64((1 << PROBABILITY_BITS) - 1)
_ALL = uint64(1 << PROBABILITY_BITS)
_BITS = uint64(PROBABILITY_BITS)
_WORD = uint64(16)
_LEAST_STATE = uint64(1 << 16)
_ONE = uint64(1)
_REACH = int64(3 * 128)
"""Scores are at least −_REACH; the index into squash is score + _REACH."""


@njit(inline="always")
def _neighbour_rows(ids_L, token, column, width, num_codes, row_size, first_size):
    """Return the offsets of the three neighbors' rows in the weights."""
    left = upper = upper_right = num_codes
    if column > 0:
        left = uint64(ids_L[token - _ONE])
    if token >= width:
        upper = uint64(ids_L[token - width])
        if column + _ONE < width:
            upper_right = uint64(ids_L[token - width + _ONE])
    plane = (num_codes + _ONE) * row_size
    return left * row_size, plane + upper * row_size, plane + plane + upper_right * first_size


@njit(inline="always")
def _left_excess(entry, rows, excess, weights, squash):
    """Return the part of an interval's excess that turn 0 takes at inner node ``entry``."""
    score = _REACH
    for row in rows:
        score += int64(weights[row + entry])
    return (excess * uint64(squash[uint64(score)])) >> _BITS


@njit(inline="always")
def _turn(place, rows, half, weights, squash):
    """Take one turn toward the slot: (entry, slot within the interval, excess of the interval).

    The excess is an interval's size minus its leaves, each of which has a size of at least one.
    """
    entry, slot, excess = place
    left = _left_excess(entry, rows, excess, weights, squash)
    middle = half + left
    right = slot >= middle
    return (
        entry + entry + uint64(right),
        slot - middle if right else slot,
        excess - left if right else left,
    )


@njit(inline="always")
def _advance(state, position, end, place, words):
    """Remove a symbol from the state, and shift a word into it if it runs low."""
    state = (place[2] + _ONE) * (state >> _BITS) + place[1]
    hungry = (state < _LEAST_STATE) & (position < end)
    state = (state << _WORD) | uint64(words[position]) if hungry else state
    return state, position + uint64(hungry)


@njit(inline="always")
def _deeper_rows(rows, start):
    """Return the rows of the left and the upper neighbor from a group tree on."""
    return rows[0] + start, rows[1] + start


@njit(inline="always")
def _open_stream(words, bounds, lane):
    begin = bounds[lane, 0]
    state = (uint64(words[begin]) << _WORD) | uint64(words[begin + _ONE])
    return state, begin + uint64(2), bounds[lane, 1]


@compiled
def decode(
    words, bounds, width, codes, weights, squash, levels, bases, num_codes, row_size, ids, whole
):
    """Decode streams into ``ids`` uint16 (N, L), N a multiple of ``LANES``; see the reference."""
    width, num_codes, row_size = uint64(width), uint64(num_codes), uint64(row_size)
    first_size = _ONE << levels[0]
    for first in range(0, len(bounds), LANES):
        ids0, ids1, ids2, ids3 = ids[first], ids[first + 1], ids[first + 2], ids[first + 3]
        state0, position0, end0 = _open_stream(words, bounds, first)
        state1, position1, end1 = _open_stream(words, bounds, first + 1)
        state2, position2, end2 = _open_stream(words, bounds, first + 2)
        state3, position3, end3 = _open_stream(words, bounds, first + 3)
        column = uint64(0)
        for index in range(ids.shape[1]):
            token = uint64(index)
            near0 = _neighbour_rows(ids0, token, column, width, num_codes, row_size, first_size)
            near1 = _neighbour_rows(ids1, token, column, width, num_codes, row_size, first_size)
            near2 = _neighbour_rows(ids2, token, column, width, num_codes, row_size, first_size)
            near3 = _neighbour_rows(ids3, token, column, width, num_codes, row_size, first_size)
            half = leaves = _ONE << levels[0]
            excess = _ALL - leaves
            place0 = (_ONE, state0 & _MASK, excess)
            place1 = (_ONE, state1 & _MASK, excess)
            place2 = (_ONE, state2 & _MASK, excess)
            place3 = (_ONE, state3 & _MASK, excess)
            for _ in range(int64(levels[0])):
                half >>= _ONE
                place0 = _turn(place0, near0, half, weights, squash)
                place1 = _turn(place1, near1, half, weights, squash)
                place2 = _turn(place2, near2, half, weights, squash)
                place3 = _turn(place3, near3, half, weights, squash)
            state0, position0 = _advance(state0, position0, end0, place0, words)
            state1, position1 = _advance(state1, position1, end1, place1, words)
            state2, position2 = _advance(state2, position2, end2, place2, words)
            state3, position3 = _advance(state3, position3, end3, place3, words)
            leaf0 = place0[0] - leaves
            leaf1 = place1[0] - leaves
            leaf2 = place2[0] - leaves
            leaf3 = place3[0] - leaves
            for group in range(1, len(levels)):
                depth, base = levels[group], bases[group]
                half = leaves = _ONE << depth
                excess = _ALL - leaves
                rows0 = _deeper_rows(near0, base + (leaf0 << depth))
                rows1 = _deeper_rows(near1, base + (leaf1 << depth))
                rows2 = _deeper_rows(near2, base + (leaf2 << depth))
                rows3 = _deeper_rows(near3, base + (leaf3 << depth))
                place0 = (_ONE, state0 & _MASK, excess)
                place1 = (_ONE, state1 & _MASK, excess)
                place2 = (_ONE, state2 & _MASK, excess)
                place3 = (_ONE, state3 & _MASK, excess)
                for _ in range(int64(depth)):
                    half >>= _ONE
                    place0 = _turn(place0, rows0, half, weights, squash)
                    place1 = _turn(place1, rows1, half, weights, squash)
                    place2 = _turn(place2, rows2, half, weights, squash)
                    place3 = _turn(place3, rows3, half, weights, squash)
                state0, position0 = _advance(state0, position0, end0, place0, words)
                state1, position1 = _advance(state1, position1, end1, place1, words)
                state2, position2 = _advance(state2, position2, end2, place2, words)
                state3, position3 = _advance(state3, position3, end3, place3, words)
                leaf0 = (leaf0 << depth) + place0[0] - leaves
                leaf1 = (leaf1 << depth) + place1[0] - leaves
                leaf2 = (leaf2 << depth) + place2[0] - leaves
                leaf3 = (leaf3 << depth) + place3[0] - leaves
            ids0[token], ids1[token] = codes[leaf0], codes[leaf1]
            ids2[token], ids3[token] = codes[leaf2], codes[leaf3]
            column = column + _ONE if column + _ONE < width else uint64(0)
        whole[first] = (state0 == uint64(0)) & (position0 == end0)
        whole[first + 1] = (state1 == uint64(0)) & (position1 == end1)
        whole[first + 2] = (state2 == uint64(0)) & (position2 == end2)
        whole[first + 3] = (state3 == uint64(0)) & (position3 == end3)


@compiled
def encode(tokens, width, paths, weights, squash, levels, bases, num_codes, row_size, words, sizes):
    """Encode ``tokens`` uint16 (N, L) into ``words``; ``sizes`` (N,) and the result count them."""
    width, num_codes, row_size = uint64(width), uint64(num_codes), uint64(row_size)
    symbols = tokens.shape[1] * len(levels)
    low_of, size_of = np.empty(symbols, np.uint64), np.empty(symbols, np.uint64)
    reversed_words = np.empty(symbols + 1, np.uint16)
    total = 0
    for sample in range(len(tokens)):
        _find_intervals(
            tokens[sample],
            width,
            paths,
            weights,
            squash,
            levels,
            bases,
            num_codes,
            row_size,
            low_of,
            size_of,
        )
        state, count = uint64(0), 0
        for symbol in range(symbols - 1, -1, -1):
            size = size_of[symbol]
            if state >= size << (uint64(32) - _BITS):
                reversed_words[count] = state & uint64(0xFFFF)
                count += 1
                state >>= _WORD
            state = ((state // size) << _BITS) + low_of[symbol] + state % size
        words[total] = state >> _WORD
        words[total + 1] = state & uint64(0xFFFF)
        for number in range(count):
            words[total + 2 + number] = reversed_words[count - 1 - number]
        sizes[sample] = count + 2
        total += count + 2
    return total


@njit(nogil=True, error_model="numpy")
def _find_intervals(
    ids, width, paths, weights, squash, levels, bases, num_codes, row_size, low_of, size_of
):
    """Fill in start and size of the interval of every symbol of a sample, in units of 2**-15."""
    depth_in_all = uint64(0)
    for group in range(len(levels)):
        depth_in_all += levels[group]
    symbol = 0
    for index in range(len(ids)):
        token = uint64(index)
        near = _neighbour_rows(
            ids, token, token % width, width, num_codes, row_size, _ONE << levels[0]
        )
        path, leaf, below = uint64(paths[ids[token]]), uint64(0), depth_in_all
        for group in range(len(levels)):
            depth = levels[group]
            below -= depth
            leaves = _ONE << depth
            branch = (path >> below) & (leaves - _ONE)
            if group == 0:
                interval = _interval(near, branch, leaves, weights, squash)
            else:
                rows = _deeper_rows(near, bases[group] + (leaf << depth))
                interval = _interval(rows, branch, leaves, weights, squash)
            low_of[symbol], size_of[symbol] = interval
            leaf = (leaf << depth) + branch
            symbol += 1


@njit(inline="always")
def _interval(rows, branch, leaves, weights, squash):
    """Return start and size of the interval of a branch of a group tree."""
    entry, low, excess, half = _ONE, uint64(0), _ALL - leaves, leaves
    while half > _ONE:
        half >>= _ONE
        left = _left_excess(entry, rows, excess, weights, squash)
        right = (branch & half) != uint64(0)
        low = low + half + left if right else low
        excess = excess - left if right else left
        entry = entry + entry + uint64(right)
    return low, excess + _ONE
