# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Philox in Triton: the words of :mod:`seit.augment.philox`. Importing requires Triton.

There are no annotations: Triton infers types.
"""

import math

import triton
import triton.language as tl

from seit.augment.philox import KEY_STEPS, MULTIPLIERS, NUM_ROUNDS, UNIT_24

_MULTIPLIER_A = tl.constexpr(MULTIPLIERS[0])
_MULTIPLIER_B = tl.constexpr(MULTIPLIERS[1])
_KEY_STEP_A = tl.constexpr(KEY_STEPS[0])
_KEY_STEP_B = tl.constexpr(KEY_STEPS[1])
_NUM_ROUNDS = tl.constexpr(NUM_ROUNDS)
_UNIT_24 = tl.constexpr(UNIT_24)
_RADIANS = tl.constexpr(2 * math.pi * UNIT_24)


@triton.jit(do_not_specialize=["total", "per_sample", "count", "key_a", "key_b", "op"])
def draw_program(
    positions,
    out,
    total,
    per_sample,
    count,
    key_a,
    key_b,
    op,
    UNIFORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write BLOCK of the ``total`` blocks of all samples, ``count`` draws per sample."""
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    sample = number // per_sample
    block = number % per_sample
    position = tl.load(positions + sample, mask=number < total, other=0)
    a, b, c, d = random_words(block, position, key_a, key_b, op)
    words = tl.join(tl.join(a, c), tl.join(b, d)).reshape(BLOCK, 4)
    draw = 4 * block[:, None] + tl.arange(0, 4)[None, :]
    target = out + sample[:, None] * count + draw
    mask = (number < total)[:, None] & (draw < count)
    if UNIFORM:
        tl.store(target, to_uniform(words), mask=mask)
    else:
        tl.store(target, words.to(tl.int64), mask=mask)


@triton.jit
def to_uniform(word):
    """Return float32 in [0, 1), as in :meth:`seit.augment.random.SampleRandom.uniform`."""
    return (word >> 8).to(tl.float32) * _UNIT_24


@triton.jit
def to_integer(word, high):
    """Return int32 in [0, high), as in :meth:`seit.augment.random.SampleRandom.randint`."""
    return ((word.to(tl.uint64) * high.to(tl.uint64)) >> 32).to(tl.int32)


@triton.jit
def random_words(block, position, key_a, key_b, op):
    """Return four uint32 per block of an operation, as in :func:`seit.augment.philox.philox4x32`.

    ``block`` is a tensor that broadcasts with ``position``; both may be one sample's.
    """
    a = block.to(tl.uint32)
    b = (tl.full(block.shape, 0, tl.uint32) + op).to(tl.uint32)
    c = tl.full(block.shape, 0, tl.uint32) + position.to(tl.uint32)
    d = tl.full(block.shape, 0, tl.uint32) + (position >> 32).to(tl.uint32)
    # The same shape as the others, whose sums wrap silently in the interpreter too.
    key_a = tl.full(block.shape, 0, tl.uint32) + key_a.to(tl.uint32)
    key_b = tl.full(block.shape, 0, tl.uint32) + key_b.to(tl.uint32)
    for _ in tl.static_range(_NUM_ROUNDS):
        p = a.to(tl.uint64) * _MULTIPLIER_A
        q = c.to(tl.uint64) * _MULTIPLIER_B
        a = (q >> 32).to(tl.uint32) ^ b ^ key_a
        c = (p >> 32).to(tl.uint32) ^ d ^ key_b
        b = q.to(tl.uint32)
        d = p.to(tl.uint32)
        key_a += _KEY_STEP_A
        key_b += _KEY_STEP_B
    return a, b, c, d


@triton.jit
def box_muller(radius_word, angle_word):
    """Return two normals from two words, as in :meth:`seit.augment.random.SampleRandom.normal`.

    The angle is reduced to ±π/4 exactly, in integers, so that short polynomials suffice: least
    squares over Chebyshev points, within 1.1e-7 of sine and cosine.
    """
    u = ((radius_word >> 8) + 1).to(tl.float32) * _UNIT_24
    radius = tl.sqrt(tl.log(u) * -2.0)
    turns = (angle_word >> 8).to(tl.int32)
    quarter = (turns + (1 << 21)) >> 22
    x = (turns - (quarter << 22)).to(tl.float32) * _RADIANS
    z = x * x
    sine = tl.fma(tl.fma(z, -1.958795e-4, 8.3327487e-3), z, -1.6666665e-1)
    sine = tl.fma(sine * z, x, x)
    cosine = tl.fma(tl.fma(z, 2.4546505e-5, -1.3888292e-3), z, 4.1666645e-2)
    cosine = tl.fma(cosine * z, z, tl.fma(z, -0.5, 1.0))
    swapped = quarter & 1 != 0
    first = tl.where(swapped, sine, cosine)
    second = tl.where(swapped, cosine, sine)
    first = tl.where((quarter + 1) & 2 != 0, -first, first)
    second = tl.where(quarter & 2 != 0, -second, second)
    return radius * first, radius * second
