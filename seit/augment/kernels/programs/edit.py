# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Triton program that edits ids. Importing this module requires Triton.

There are no annotations: Triton infers types.

Legend: B batch, T tokens of a tile, S synonyms per code, H W grid.
"""

import triton
import triton.language as tl

from seit.augment.kernels.programs.fused import find_row, load_id
from seit.augment.kernels.programs.philox import random_words, to_integer, to_uniform
from seit.augment.philox import Op
from seit.augment.swap import NUM_CANDIDATES

_NUM_CANDIDATES = tl.constexpr(NUM_CANDIDATES)
_EDIT = tl.constexpr(int(Op.EDIT))
_SYNONYM = tl.constexpr(int(Op.SYNONYM))
_SWAP_SIDE = tl.constexpr(int(Op.SWAP_SIDE))
_SWAP_PLACE = tl.constexpr(int(Op.SWAP_PLACE))
_TIME_ROLL = tl.constexpr(int(Op.TIME_ROLL))
_FLIP = tl.constexpr(int(Op.FLIP))


@triton.jit(do_not_specialize=["num_rows", "num_codes", "key_a", "key_b"])
def edit_program(
    tokens,
    rows,
    positions,
    synonyms,
    out,
    num_rows,
    num_codes,
    key_a,
    key_b,
    synonym_prob,
    synonym_rate,
    synonym_scale,
    swap_end,
    swap_side,
    flip_prob,
    STRIDE: tl.constexpr,
    PLANES: tl.constexpr,
    GRID: tl.constexpr,
    SYNONYMS: tl.constexpr,
    SWAPS: tl.constexpr,
    ROLL: tl.constexpr,
    FLIPS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write TILE edited ids of one sample.

    Traces each id back to its source, before the flip, the roll and the swap, in this order. Values
    of the whole sample are vectors of one element.
    """
    LENGTH: tl.constexpr = GRID[0] * GRID[1]
    NUM_TILES: tl.constexpr = (LENGTH + TILE - 1) // TILE
    sample = tl.program_id(0) // NUM_TILES
    token = tl.program_id(0) % NUM_TILES * TILE + tl.arange(0, TILE)
    position = tl.load(positions + sample)
    one = tl.arange(0, 1)
    row = token // GRID[1]
    column = token % GRID[1]
    if FLIPS:
        words = random_words(one, position, key_a, key_b, _FLIP)
        column = tl.where(to_uniform(words[0]) < flip_prob, GRID[1] - 1 - column, column)
    if ROLL > 0:
        words = random_words(one, position, key_a, key_b, _TIME_ROLL)
        shift = to_integer(words[0], one + (2 * ROLL + 1)) - ROLL
        column = (column - shift + GRID[1]) % GRID[1]
    words = random_words(one, position, key_a, key_b, _EDIT)
    choice = to_uniform(words[0])
    source = row * GRID[1] + column
    if SWAPS:
        source = _swap(
            source,
            row,
            column,
            (choice >= synonym_prob) & (choice < swap_end),
            position,
            key_a,
            key_b,
            swap_side,
            GRID,
        )
    readable = token < LENGTH
    source = tl.where(readable, source, 0)
    ids = load_id(tokens, find_row(rows, sample, num_rows, STRIDE), source, PLANES)
    if SYNONYMS > 0:
        words = random_words(source // 4, position, key_a, key_b, _SYNONYM)
        u = to_uniform(_take_word(words, source % 4))
        which = tl.minimum((u * synonym_scale).to(tl.int32), SYNONYMS - 1)
        code = tl.minimum(ids, (num_codes - 1).to(tl.uint32)).to(tl.int64)
        other = tl.load(synonyms + code * SYNONYMS + which).to(tl.uint32)
        ids = tl.where((choice < synonym_prob) & (u < synonym_rate), other, ids)
    target = out + sample.to(tl.int64) * LENGTH + token
    tl.store(target, ids.to(out.dtype.element_ty), mask=readable)


@triton.jit
def _take_word(words, lane):
    """Return the word of the given number among four."""
    first = tl.where(lane == 0, words[0], words[1])
    return tl.where(lane < 2, first, tl.where(lane == 2, words[2], words[3]))


@triton.jit
def _swap(source, row, column, selected, position, key_a, key_b, swap_side, GRID: tl.constexpr):
    """Return the sources of tokens when two squares are swapped, as in `seit.augment.swap`."""
    one = tl.arange(0, 1)
    words = random_words(one, position, key_a, key_b, _SWAP_SIDE)
    side = (to_uniform(words[0]) * swap_side).to(tl.int32)
    # Words 2n and 2n + 1 are a place: of the first square, then of each candidate.
    words = random_words(one, position, key_a, key_b, _SWAP_PLACE)
    first_row = to_integer(words[0], GRID[0] + 1 - side)
    first_column = to_integer(words[1], GRID[1] + 1 - side)
    second_row = first_row
    second_column = first_column
    found = one < 0
    for number in tl.static_range(1, 1 + _NUM_CANDIDATES):
        if number % 2 == 0:
            words = random_words(one + number // 2, position, key_a, key_b, _SWAP_PLACE)
        other_row = to_integer(words[2 * (number % 2)], GRID[0] + 1 - side)
        other_column = to_integer(words[2 * (number % 2) + 1], GRID[1] + 1 - side)
        down = other_row - first_row
        right = other_column - first_column
        taken = (down * down + right * right > side * side) & (found == 0)
        second_row = tl.where(taken, other_row, second_row)
        second_column = tl.where(taken, other_column, second_column)
        found = found | taken
    side = tl.where(selected & found, side, 0)
    shift = (second_row - first_row) * GRID[1] + second_column - first_column
    swapped = tl.where(_inside(row, column, first_row, first_column, side), source + shift, source)
    return tl.where(_inside(row, column, second_row, second_column, side), source - shift, swapped)


@triton.jit
def _inside(row, column, top, left, side):
    inside_rows = (row >= top) & (row < top + side)
    return inside_rows & (column >= left) & (column < left + side)
