# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Triton program that draws a plan. Importing this module requires Triton.

There are no annotations: Triton infers types. Rounding is that of torch for each operation: no
fused multiply-adds, IEEE division and square root.

Legend: B batch, n samples of a program, C codebook dim, H W grid, h w cropped grid.
"""

import triton
import triton.language as tl

from seit.augment.crop import NUM_TRIES
from seit.augment.kernels.columns import PLAN_COLUMNS
from seit.augment.kernels.programs.philox import box_muller, random_words, to_integer, to_uniform
from seit.augment.philox import Op

_PLAN_COLUMNS = tl.constexpr(PLAN_COLUMNS)
_NUM_TRIES = tl.constexpr(NUM_TRIES)
_CROP_SHAPE = tl.constexpr(int(Op.CROP_SHAPE))
_CROP_PLACE = tl.constexpr(int(Op.CROP_PLACE))
_NOISE_GATE = tl.constexpr(int(Op.NOISE_GATE))
_NOISE_CHANNEL = tl.constexpr(int(Op.NOISE_CHANNEL))
_CUTMIX_GATE = tl.constexpr(int(Op.CUTMIX_GATE))
_CUTMIX_BOX = tl.constexpr(int(Op.CUTMIX_BOX))
_ROUNDER = tl.constexpr(1.5 * 2.0**23)
"""Number whose addition and subtraction round a small float32 to an integer, halves to even."""


@triton.jit(do_not_specialize=["batch", "key_a", "key_b"])
def plan_program(
    positions,
    aspect,
    share,
    partner,
    columns,
    shift,
    scales,
    weight,
    batch,
    key_a,
    key_b,
    scale_low,
    scale_range,
    noise_prob,
    cutmix_prob,
    GRID: tl.constexpr,
    SIZE: tl.constexpr,
    FALLBACK: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw the plans of BLOCK samples, as in :func:`seit.augment.kernels.plan.draw_plan`.

    ``aspect`` is (B, tries) and ``share`` (B,), or None without CutMix, both computed by torch.
    ``scales`` is (C,), deviations of the channels' shifts.
    """
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = sample < batch
    position = tl.load(positions + sample, mask=live, other=0)
    first = sample * 0

    height = first
    width = first
    for block in tl.static_range((_NUM_TRIES + 3) // 4):
        words = random_words(first + block, position, key_a, key_b, _CROP_SHAPE)
        for lane in tl.static_range(4):
            if 4 * block + lane < _NUM_TRIES:
                area = (to_uniform(words[lane]) * scale_range + scale_low) * (
                    GRID[0] * GRID[1] * 1.0
                )
                ratio = aspect + sample * _NUM_TRIES + 4 * block + lane
                ratio = tl.load(ratio, mask=live, other=1.0)
                rows = _round(tl.sqrt_rn(tl.div_rn(area, ratio)))
                cells = _round(tl.sqrt_rn(area * ratio))
                fits = (rows > 0) & (rows <= GRID[0]) & (cells > 0) & (cells <= GRID[1])
                fits &= height == 0
                height = tl.where(fits, rows, height)
                width = tl.where(fits, cells, width)
    found = height > 0
    height = tl.where(found, height, FALLBACK[0])
    width = tl.where(found, width, FALLBACK[1])
    a, b, c, d = random_words(first, position, key_a, key_b, _CROP_PLACE)
    y_room = GRID[0] - height
    x_room = GRID[1] - width
    own = columns + sample * _PLAN_COLUMNS
    tl.store(own, tl.where(found, to_integer(a, y_room + 1), y_room // 2), mask=live)
    tl.store(own + 1, tl.where(found, to_integer(b, x_room + 1), x_room // 2), mask=live)
    tl.store(own + 2, height, mask=live)
    tl.store(own + 3, width, mask=live)

    top = first
    left = first
    bottom = first
    right = first
    if share is not None:
        own_share = tl.load(share + sample, mask=live, other=1.0)
        side = tl.sqrt_rn(1.0 - own_share)
        a, b, c, d = random_words(first, position, key_a, key_b, _CUTMIX_BOX)
        top, bottom = _place_box(side, to_uniform(a), SIZE[0])
        left, right = _place_box(side, to_uniform(b), SIZE[1])
        a, b, c, d = random_words(first, position, key_a, key_b, _CUTMIX_GATE)
        mixed = (to_uniform(a) < cutmix_prob).to(tl.int32)
        top *= mixed
        left *= mixed
        bottom *= mixed
        right *= mixed
    tl.store(own + 4, top, mask=live)
    tl.store(own + 5, left, mask=live)
    tl.store(own + 6, bottom, mask=live)
    tl.store(own + 7, right, mask=live)
    pasted = ((bottom - top) * (right - left)).to(tl.float32)
    NUM_CELLS: tl.constexpr = SIZE[0] * SIZE[1]
    tl.store(weight + sample, 1.0 - tl.div_rn(pasted, NUM_CELLS * 1.0), mask=live)
    other = batch - 1 - sample
    if partner is not None:
        other = tl.load(partner + sample, mask=live, other=0).to(tl.int32)
    tl.store(own + 8, other, mask=live)

    noised = first
    if shift is not None:
        a, b, c, d = random_words(first, position, key_a, key_b, _NOISE_GATE)
        noised = (to_uniform(a) < noise_prob).to(tl.int32)
        amount = noised.to(tl.float32)
        for block in range((C + 3) // 4):
            a, b, c, d = random_words(first + block, position, key_a, key_b, _NOISE_CHANNEL)
            z0, z1 = box_muller(a, b)
            z2, z3 = box_muller(c, d)
            channel = first + 4 * block
            target = shift + sample.to(tl.int64) * C + channel
            _store_shift(target, scales, z0 * amount, channel, live, C)
            _store_shift(target + 1, scales, z1 * amount, channel + 1, live, C)
            _store_shift(target + 2, scales, z2 * amount, channel + 2, live, C)
            _store_shift(target + 3, scales, z3 * amount, channel + 3, live, C)
    tl.store(own + 9, noised, mask=live)


@triton.jit
def _store_shift(target, scales, normal, channel, live, C: tl.constexpr):
    """Store a channel's shift, in its unit; nothing beyond the last channel."""
    mask = live & (channel < C)
    tl.store(target, normal * tl.load(scales + channel, mask=mask, other=0.0), mask=mask)


@triton.jit
def _round(value):
    """Round to the nearest int32, halves to even, as torch.round does below 2²²."""
    return ((value + _ROUNDER) - _ROUNDER).to(tl.int32)


@triton.jit
def _place_box(side, u, EXTENT: tl.constexpr):
    """Return start and end of a box along an axis: :func:`seit.augment.cutmix.cutmix_boxes`."""
    cells = (side * (EXTENT * 1.0)).to(tl.int32)
    start = (u * (EXTENT * 1.0)).to(tl.int32) - cells // 2
    return tl.maximum(start, 0), tl.minimum(start + cells, EXTENT)
