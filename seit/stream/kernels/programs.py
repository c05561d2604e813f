# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Triton programs. Importing this module requires Triton, so its users import it late.

There are no type annotations: Triton infers types. Python integers in a program are int32, as are
their products, unless stated otherwise.

Shape letters: B batch, L tokens per sample, S bytes per packed sample, H W grid, K codes, R entries
of a row of the context tables.
"""

import triton
import triton.language as tl

from seit.shards import PROBABILITY_BITS

_BITS = tl.constexpr(PROBABILITY_BITS)
_ALL = tl.constexpr(1 << PROBABILITY_BITS)
_LEAST_STATE = tl.constexpr(1 << 16)
_REACH = tl.constexpr(3 * 128)


@triton.jit(do_not_specialize=["num_rows"])
def unpack_program(
    packed, rows, tokens, num_rows, length, stride, PLANES: tl.constexpr, BLOCK: tl.constexpr
):
    """Unpack BLOCK tokens of one sample; the sample is row ``rows[b]``, or row b without rows."""
    program = tl.program_id(0)
    parts = (length + BLOCK - 1) // BLOCK
    sample = (program // parts).to(tl.int64)
    token = (program % parts) * BLOCK + tl.arange(0, BLOCK)
    row = sample
    if rows is not None:
        row = tl.load(rows + sample)
    readable = token < tl.where((row >= 0) & (row < num_rows), length, 0)
    ids = tl.full([BLOCK], 0, tl.int32)
    for plane in tl.static_range(len(PLANES)):
        per_byte = 8 // PLANES[plane][1]
        place = packed + row * stride + PLANES[plane][2] + token // per_byte
        byte = tl.load(place, mask=readable, other=0).to(tl.int32)
        value = (byte >> (token % per_byte) * PLANES[plane][1]) & ((1 << PLANES[plane][1]) - 1)
        ids |= value << PLANES[plane][0]
    tl.store(tokens + sample * length + token, ids.to(tokens.dtype.element_ty), mask=token < length)


@triton.jit(do_not_specialize=["count", "num_words"])
def decode_program(
    words,
    bounds,
    ids,
    whole,
    weights,
    corner,
    squash,
    codes,
    count,
    num_words,
    height,
    width,
    num_codes,
    row_size,
    LEVELS: tl.constexpr,
    MOST_LEVELS: tl.constexpr,
    BASES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Decode BLOCK streams, one per lane, with the steps of `seit.shards.context.reference`.

    ``ids`` is (H + 1, W + 1, B), with K in the first row and in the last column, so that all
    neighbors exist. Streams with bounds outside ``words`` read as empty and incomplete.
    """
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = lane < count
    begin = tl.load(bounds + 2 * lane.to(tl.int64), mask=live, other=0)
    end = tl.load(bounds + 2 * lane.to(tl.int64) + 1, mask=live, other=0)
    sound = live & (begin >= 0) & (begin < end) & (end <= num_words) & (end - begin >= 2)
    state = (_load_word(words + begin, sound) << 16) | _load_word(words + begin + 1, sound)
    position = begin + 2
    plane = (num_codes + 1) * row_size
    above = ids + lane
    here = above + (width + 1) * count.to(tl.int64)
    for _row in range(height):
        left = tl.full([BLOCK], 0, tl.int32) + num_codes
        upper = tl.load(above, mask=live, other=0).to(tl.int32)
        for _column in range(width):
            above += count
            upper_right = tl.load(above, mask=live, other=0).to(tl.int32)
            rows0 = weights + left * row_size
            rows1 = weights + plane + upper * row_size
            rows2 = corner + upper_right * (1 << LEVELS[0])
            leaf = tl.full([BLOCK], 0, tl.int32)
            for group in tl.static_range(len(LEVELS)):
                hungry = sound & (position < end)
                word = _load_word(words + position, hungry)
                start = BASES[group] + (leaf << LEVELS[group])
                slot = (state & (_ALL - 1)).to(tl.int32)
                excess = tl.full([BLOCK], _ALL - (1 << LEVELS[group]), tl.int32)
                entry = tl.full([BLOCK], 1, tl.int32)
                # Triton before 3.7 does not accept an entry of a tuple as the length of a loop.
                for level in tl.static_range(MOST_LEVELS):
                    if level < LEVELS[group]:
                        place = start + entry
                        score = tl.load(rows0 + place, mask=live, other=0).to(tl.int32)
                        score += tl.load(rows1 + place, mask=live, other=0).to(tl.int32)
                        if group == 0:
                            score += tl.load(rows2 + place, mask=live, other=0).to(tl.int32)
                        share = tl.load(squash + score + _REACH, mask=live, other=0).to(tl.int32)
                        left_excess = (excess * share) >> _BITS
                        middle = left_excess + ((1 << LEVELS[group]) >> (level + 1))
                        right = slot >= middle
                        slot = tl.where(right, slot - middle, slot)
                        excess = tl.where(right, excess - left_excess, left_excess)
                        entry = 2 * entry + right.to(tl.int32)
                state = (excess + 1).to(tl.uint32) * (state >> _BITS) + slot.to(tl.uint32)
                hungry = hungry & (state < _LEAST_STATE)
                state = tl.where(hungry, (state << 16) | word, state)
                position += hungry.to(tl.int64)
                leaf = (leaf << LEVELS[group]) + entry - (1 << LEVELS[group])
            left = tl.load(codes + leaf, mask=live, other=0).to(tl.int32)
            tl.store(here, left.to(tl.int16), mask=live)
            here += count
            upper = upper_right
        above += count
        here += count
        # Loads read the row above, stores write this one. The barrier makes the row visible to the
        # loads of the next one, whichever thread of the program holds a lane in either.
        tl.debug_barrier()
    tl.store(whole + lane, (sound & (state == 0) & (position == end)).to(tl.int8), mask=live)


@triton.jit
def _load_word(place, mask):
    """Return a word, stored as int16, as uint32."""
    return tl.load(place, mask=mask, other=0).to(tl.uint32) & 0xFFFF
