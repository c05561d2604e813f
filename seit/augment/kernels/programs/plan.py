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
from seit.augment.erase import ERASED_AREA
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
_ERASE = tl.constexpr(int(Op.ERASE))
_FREQ_MASK = tl.constexpr(int(Op.FREQ_MASK))
_TIME_MASK = tl.constexpr(int(Op.TIME_MASK))
_LEAST_ERASED = tl.constexpr(ERASED_AREA[0])
_ERASED_RANGE = tl.constexpr(ERASED_AREA[1] - ERASED_AREA[0])
_ROUNDER = tl.constexpr(1.5 * 2.0**23)
"""Number whose addition and subtraction round a small float32 to an integer, halves to even."""


@triton.jit(do_not_specialize=["batch", "key_a", "key_b"])
def plan_program(
    positions,
    aspect,
    share,
    own_share,
    erased_ratio,
    partner,
    columns,
    shift,
    scales,
    blend,
    blanks,
    weight,
    batch,
    key_a,
    key_b,
    scale_low,
    scale_range,
    noise_prob,
    cutmix_prob,
    mixup_end,
    erase_prob,
    GRID: tl.constexpr,
    SIZE: tl.constexpr,
    FALLBACK: tl.constexpr,
    FREQ_MASKS: tl.constexpr,
    FREQ_MOST: tl.constexpr,
    TIME_MASKS: tl.constexpr,
    TIME_MOST: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Draw the plans of BLOCK samples, as in :func:`seit.augment.kernels.plan.draw_plan`.

    ``aspect`` is (B, tries), and (B,) are ``share``, or None without CutMix, ``own_share``, or None
    without Mixup, and ``erased_ratio``, or None without erasing: all computed by torch. ``scales``
    is (C,), deviations of the channels' shifts.
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
        side = tl.sqrt_rn(1.0 - tl.load(share + sample, mask=live, other=1.0))
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
    label_weight = 1.0 - tl.div_rn(pasted, NUM_CELLS * 1.0)
    if blend is not None:
        a, b, c, d = random_words(first, position, key_a, key_b, _CUTMIX_GATE)
        u = to_uniform(a)
        kept = tl.load(own_share + sample, mask=live, other=1.0)
        kept = tl.where((u >= cutmix_prob) & (u < mixup_end), kept, 1.0)
        tl.store(blend + sample, kept, mask=live)
        label_weight *= kept
    tl.store(weight + sample, label_weight, mask=live)
    other = batch - 1 - sample
    if partner is not None:
        other = tl.load(partner + sample, mask=live, other=0).to(tl.int32)
    tl.store(own + 8, other, mask=live)

    NUM_ERASED: tl.constexpr = 0 if erased_ratio is None else 1
    NUM_BLANKS: tl.constexpr = NUM_ERASED + FREQ_MASKS + TIME_MASKS
    if NUM_BLANKS > 0:
        blank = blanks + sample.to(tl.int64) * (4 * NUM_BLANKS)
        if erased_ratio is not None:
            ratio = tl.load(erased_ratio + sample, mask=live, other=1.0)
            top, left, bottom, right = _draw_erased(
                first, position, ratio, erase_prob, key_a, key_b, SIZE
            )
            _store_box(blank, top, left, bottom, right, live)
        blank += 4 * NUM_ERASED
        for band in range(FREQ_MASKS):
            start, end = _draw_band(
                first, band, position, key_a, key_b, _FREQ_MASK, SIZE[0], FREQ_MOST
            )
            _store_box(blank + 4 * band, start, first, end, first + SIZE[1], live)
        blank += 4 * FREQ_MASKS
        for band in range(TIME_MASKS):
            start, end = _draw_band(
                first, band, position, key_a, key_b, _TIME_MASK, SIZE[1], TIME_MOST
            )
            _store_box(blank + 4 * band, first, start, first + SIZE[0], end, live)

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
def _draw_erased(first, position, ratio, erase_prob, key_a, key_b, SIZE: tl.constexpr):
    """Return a box, as `seit.augment.erase.erase_boxes` draws it."""
    gate, share, _, u_top = random_words(first, position, key_a, key_b, _ERASE)
    u_left, _, _, _ = random_words(first + 1, position, key_a, key_b, _ERASE)
    cells = (to_uniform(share) * _ERASED_RANGE + _LEAST_ERASED) * (SIZE[0] * SIZE[1] * 1.0)
    height = tl.minimum(tl.maximum(_round(tl.sqrt_rn(cells * ratio)), 1), SIZE[0])
    width = tl.minimum(tl.maximum(_round(tl.sqrt_rn(tl.div_rn(cells, ratio))), 1), SIZE[1])
    top = (to_uniform(u_top) * (SIZE[0] + 1 - height).to(tl.float32)).to(tl.int32)
    left = (to_uniform(u_left) * (SIZE[1] + 1 - width).to(tl.float32)).to(tl.int32)
    erased = (to_uniform(gate) < erase_prob).to(tl.int32)
    return top * erased, left * erased, (top + height) * erased, (left + width) * erased


@triton.jit
def _draw_band(first, band, position, key_a, key_b, op, SIZE: tl.constexpr, MOST: tl.constexpr):
    """Return start and end of a band of an axis: `seit.augment.masks.random_bands`."""
    a, b, c, d = random_words(first + band // 2, position, key_a, key_b, op)
    is_even = band % 2 == 0
    width = to_integer(tl.where(is_even, a, c), first + MOST + 1)
    start = to_integer(tl.where(is_even, b, d), SIZE + 1 - width)
    return start, start + width


@triton.jit
def _store_box(target, top, left, bottom, right, live):
    tl.store(target, top, mask=live)
    tl.store(target + 1, left, mask=live)
    tl.store(target + 2, bottom, mask=live)
    tl.store(target + 3, right, mask=live)


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
