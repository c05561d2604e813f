# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Triton program of the fused augmentation. Importing this module requires Triton.

There are no annotations: Triton infers types. Multiplications are fused with additions only by
``tl.fma``, which keeps the geometry of crops bit for bit the same as in torch.

Legend: B batch, T cells of a tile, C codebook dim, S bytes per packed sample, H W grid,
h w cropped grid, K codes.
"""

import triton
import triton.language as tl

from seit.augment.kernels.columns import PLAN_COLUMNS
from seit.augment.kernels.programs.philox import box_muller, random_words
from seit.augment.philox import Op

_PLAN_COLUMNS = tl.constexpr(PLAN_COLUMNS)
_NOISE_ELEMENT = tl.constexpr(int(Op.NOISE_ELEMENT))
_CUBIC_A = tl.constexpr(-0.75)


@triton.jit(do_not_specialize=["batch", "num_rows", "num_codes", "key_a", "key_b"])
def embed_program(
    tokens,
    rows,
    codebook,
    plan,
    shift,
    stds,
    positions,
    blend,
    blanks,
    fill,
    out,
    batch,
    num_rows,
    num_codes,
    key_a,
    key_b,
    STRIDE: tl.constexpr,
    PLANES: tl.constexpr,
    GRID: tl.constexpr,
    SIZE: tl.constexpr,
    C: tl.constexpr,
    CUBIC: tl.constexpr,
    MIXES: tl.constexpr,
    NOISE: tl.constexpr,
    NUM_BLANKS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write TILE cells and CHANNELS channels of one sample of ``out``.

    Cells inside the sample's CutMix box are computed with the partner's tokens, crop, noise and
    blanks, and for Mixup all cells a second time with these, so programs are independent. Never
    reads outside ``tokens`` and ``codebook``, whatever the ids, rows, boxes and partners.
    """
    NUM_CELLS: tl.constexpr = SIZE[0] * SIZE[1]
    NUM_TILES: tl.constexpr = (NUM_CELLS + TILE - 1) // TILE
    NUM_PARTS: tl.constexpr = NUM_TILES * ((C + CHANNELS - 1) // CHANNELS)
    program = tl.program_id(0)
    sample = program // NUM_PARTS
    part = program % NUM_PARTS
    first_cell = part % NUM_TILES * TILE
    first_channel = part // NUM_TILES * CHANNELS
    cell = first_cell + tl.arange(0, TILE)
    channel = first_channel + tl.arange(0, CHANNELS)
    row = cell // SIZE[1]
    column = cell % SIZE[1]

    own = plan + sample * _PLAN_COLUMNS
    place = find_row(rows, sample, num_rows, STRIDE)
    y_start, y_step, y_last, x_start, x_step, x_last = _load_crop(own, SIZE)
    partner = sample
    inside = cell < 0
    if MIXES or blend is not None:
        partner = tl.minimum(tl.maximum(tl.load(own + 8), 0), batch - 1)
        place_p = find_row(rows, partner, num_rows, STRIDE)
        y_start_p, y_step_p, y_last_p, x_start_p, x_step_p, x_last_p = _load_crop(
            plan + partner * _PLAN_COLUMNS, SIZE
        )
    if MIXES:
        top = tl.load(own + 4)
        bottom = tl.load(own + 6)
        inside = (row >= top) & (row < bottom)
        inside &= (column >= tl.load(own + 5)) & (column < tl.load(own + 7))
        place = tl.where(inside, place_p, place)
        y_start = tl.where(inside, y_start_p, y_start)
        y_step = tl.where(inside, y_step_p, y_step)
        y_last = tl.where(inside, y_last_p, y_last)
        x_start = tl.where(inside, x_start_p, x_start)
        x_step = tl.where(inside, x_step_p, x_step)
        x_last = tl.where(inside, x_last_p, x_last)

    values = _interpolate(
        tokens,
        codebook,
        place,
        y_start,
        y_step,
        y_last,
        x_start,
        x_step,
        x_last,
        row,
        column,
        channel,
        num_codes,
        PLANES,
        GRID,
        C,
        CUBIC,
        TILE,
        CHANNELS,
    )
    if NOISE:
        values = _add_noise(
            values,
            inside == 0,
            first_cell >= 0,
            plan,
            sample,
            shift,
            stds,
            positions,
            key_a,
            key_b,
            first_cell,
            channel,
            C,
            NUM_CELLS,
            TILE,
            CHANNELS,
        )
        if MIXES:
            last_cell = first_cell + TILE - 1
            values = _add_noise(
                values,
                inside,
                (first_cell // SIZE[1] < bottom) & (last_cell // SIZE[1] >= top),
                plan,
                partner,
                shift,
                stds,
                positions,
                key_a,
                key_b,
                first_cell,
                channel,
                C,
                NUM_CELLS,
                TILE,
                CHANNELS,
            )
    if NUM_BLANKS > 0:
        fills = tl.load(fill + channel, mask=channel < C, other=0.0)[None, :]
        blank = _blank_cells(blanks, sample, row, column, NUM_BLANKS)
        if MIXES:
            blank_p = _blank_cells(blanks, partner, row, column, NUM_BLANKS)
            blank = tl.where(inside, blank_p, blank)
        values = tl.where(blank[:, None], fills, values)
    if blend is not None:
        share = tl.load(blend + sample)
        if share < 1:
            others = _interpolate(
                tokens,
                codebook,
                place_p,
                y_start_p,
                y_step_p,
                y_last_p,
                x_start_p,
                x_step_p,
                x_last_p,
                row,
                column,
                channel,
                num_codes,
                PLANES,
                GRID,
                C,
                CUBIC,
                TILE,
                CHANNELS,
            )
            if NOISE:
                others = _add_noise(
                    others,
                    cell >= 0,
                    first_cell >= 0,
                    plan,
                    partner,
                    shift,
                    stds,
                    positions,
                    key_a,
                    key_b,
                    first_cell,
                    channel,
                    C,
                    NUM_CELLS,
                    TILE,
                    CHANNELS,
                )
            if NUM_BLANKS > 0:
                blank = _blank_cells(blanks, partner, row, column, NUM_BLANKS)
                others = tl.where(blank[:, None], fills, others)
            values = others + share * (values - others)

    target = out + sample.to(tl.int64) * (C * NUM_CELLS)
    if CHANNELS_LAST:
        target += cell[:, None] * C + channel[None, :]
    else:
        target += channel[None, :] * NUM_CELLS + cell[:, None]
    written = (cell < NUM_CELLS)[:, None] & (channel < C)[None, :]
    tl.store(target, values.to(out.dtype.element_ty), mask=written)


@triton.jit
def _interpolate(
    tokens,
    codebook,
    place,
    y_start,
    y_step,
    y_last,
    x_start,
    x_step,
    x_last,
    row,
    column,
    channel,
    num_codes,
    PLANES: tl.constexpr,
    GRID: tl.constexpr,
    C: tl.constexpr,
    CUBIC: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Look up and interpolate cells (T, C) of a crop, whose numbers are scalars or one a cell."""
    y, y_fraction = _locate(row, y_step)
    x, x_fraction = _locate(column, x_step)
    last_code = (num_codes - 1).to(tl.uint32)
    sums = tl.full([TILE, CHANNELS], 0, tl.float32)
    NUM_TAPS: tl.constexpr = 4 if CUBIC else 2
    for i in tl.static_range(NUM_TAPS):
        y_weight = _weigh(y_fraction, i, CUBIC)
        line = _tap_cell(y, i, y_start, y_last, GRID[0], CUBIC) * GRID[1]
        for j in tl.static_range(NUM_TAPS):
            token = line + _tap_cell(x, j, x_start, x_last, GRID[1], CUBIC)
            code = tl.minimum(load_id(tokens, place, token, PLANES), last_code)
            values = tl.load(
                codebook + code[:, None] * C + channel[None, :],
                mask=(channel < C)[None, :],
                other=0.0,
            ).to(tl.float32)
            weight = y_weight * _weigh(x_fraction, j, CUBIC)
            sums = tl.fma(values, weight[:, None], sums)
    return sums


@triton.jit
def _add_noise(
    values,
    chosen,
    meets,
    plan,
    sample,
    shift,
    stds,
    positions,
    key_a,
    key_b,
    first_cell,
    channel,
    C: tl.constexpr,
    NUM_CELLS: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Add the noise of a sample to the chosen cells of (T, C); there are none unless ``meets``."""
    shifts = tl.load(shift + sample * C + channel, mask=channel < C, other=0.0)[None, :]
    values += tl.where(chosen[:, None], shifts, 0.0)
    if stds is not None:
        amounts = tl.load(stds + channel, mask=channel < C, other=0.0)[None, :]
        if meets & (tl.load(plan + sample * _PLAN_COLUMNS + 9) != 0):
            values += tl.where(chosen[:, None], amounts, 0.0) * _normals(
                tl.load(positions + sample),
                key_a,
                key_b,
                first_cell,
                channel,
                NUM_CELLS,
                TILE,
                CHANNELS,
            )
    return values


@triton.jit
def _blank_cells(blanks, sample, row, column, NUM_BLANKS: tl.constexpr):
    """Return which cells (T,) any of a sample's blanks covers."""
    covered = row < 0
    box = blanks + sample.to(tl.int64) * (4 * NUM_BLANKS)
    for number in range(NUM_BLANKS):
        side = box + 4 * number
        inside = (row >= tl.load(side)) & (row < tl.load(side + 2))
        covered |= inside & (column >= tl.load(side + 1)) & (column < tl.load(side + 3))
    return covered


@triton.jit
def find_row(rows, sample, num_rows, STRIDE: tl.constexpr):
    """Return the start of a sample's tokens; -1 if its row is invalid."""
    row = sample.to(tl.int64)
    if rows is not None:
        row = tl.load(rows + sample)
    return tl.where((row >= 0) & (row < num_rows), row * STRIDE, -1)


@triton.jit
def _load_crop(plan, SIZE: tl.constexpr):
    """Load per axis: first cell of the crop, crop cells per result cell, last cell."""
    height = tl.load(plan + 2)
    width = tl.load(plan + 3)
    y_step = tl.div_rn(height.to(tl.float32), SIZE[0] * 1.0)
    x_step = tl.div_rn(width.to(tl.float32), SIZE[1] * 1.0)
    return tl.load(plan), y_step, height - 1, tl.load(plan + 1), x_step, width - 1


@triton.jit
def _locate(cell, step):
    """Return the crop cell at or below the place of a result cell, and their distance."""
    place = step * (cell.to(tl.float32) + 0.5) - 0.5
    below = tl.floor(place)
    return below.to(tl.int32), place - below


@triton.jit
def _tap_cell(below, TAP: tl.constexpr, start, last, LENGTH: tl.constexpr, CUBIC: tl.constexpr):
    """Return the grid cell that a tap reads: beyond the crop, the crop's border."""
    cell = below + (TAP - 1 if CUBIC else TAP)
    cell = tl.minimum(tl.maximum(cell, 0), last) + start
    return tl.minimum(tl.maximum(cell, 0), LENGTH - 1)


@triton.jit
def _weigh(fraction, TAP: tl.constexpr, CUBIC: tl.constexpr):
    """Return a tap's weight: Keys' cubic convolution (a = −0.75) or linear interpolation."""
    if CUBIC:
        distance = tl.abs(fraction - (TAP - 1))
        if (TAP == 0) | (TAP == 3):
            far = tl.fma(distance, _CUBIC_A, -5 * _CUBIC_A)
            return tl.fma(tl.fma(far, distance, 8 * _CUBIC_A), distance, -4 * _CUBIC_A)
        near = tl.fma(distance, _CUBIC_A + 2, -(_CUBIC_A + 3))
        return tl.fma(near * distance, distance, 1.0)
    return 1 - tl.abs(fraction - TAP)


@triton.jit
def load_id(tokens, place, token, PLANES: tl.constexpr):
    """Load the ids of tokens, uint32: packed, or without planes unsigned as they are."""
    if len(PLANES) == 0:
        ids = tl.load(tokens + place + token)
        if tokens.dtype.element_ty == tl.uint64:
            ids = tl.minimum(ids, 1 << 31)
        return ids.to(tl.uint32)
    known = tl.full(token.shape, 0, tl.int64) + place >= 0
    ids = tl.full(token.shape, 0, tl.uint32)
    for plane in tl.static_range(len(PLANES)):
        per_byte = 8 // PLANES[plane][1]
        start = tokens + place + PLANES[plane][2]
        byte = tl.load(start + token // per_byte, mask=known, other=0).to(tl.uint32)
        value = byte >> (token % per_byte * PLANES[plane][1]).to(tl.uint32)
        ids |= (value & ((1 << PLANES[plane][1]) - 1)) << PLANES[plane][0]
    return ids


@triton.jit
def _normals(
    position,
    key_a,
    key_b,
    first_cell,
    channel,
    NUM_CELLS: tl.constexpr,
    TILE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Draw standard normals (T, C): draws channel · NUM_CELLS + cell of a sample's elements.

    A block of Philox is four draws. If channels are aligned with blocks, each block serves four
    cells; otherwise every element computes its block, at four times the cost.
    """
    if NUM_CELLS % 4 == 0:
        quad = first_cell // 4 + tl.arange(0, TILE // 4)
        block = channel[None, :] * (NUM_CELLS // 4) + quad[:, None]
        a, b, c, d = random_words(block, position, key_a, key_b, _NOISE_ELEMENT)
        z0, z1 = box_muller(a, b)
        z2, z3 = box_muller(c, d)
        four = tl.join(tl.join(z0, z2), tl.join(z1, z3)).reshape(TILE // 4, CHANNELS, 4)
        return four.permute(0, 2, 1).reshape(TILE, CHANNELS)
    element = channel[None, :] * NUM_CELLS + (first_cell + tl.arange(0, TILE))[:, None]
    a, b, c, d = random_words(element // 4, position, key_a, key_b, _NOISE_ELEMENT)
    second = element % 4 >= 2
    z0, z1 = box_muller(tl.where(second, c, a), tl.where(second, d, b))
    return tl.where(element % 2 == 0, z0, z1)
