"""Batch plans: all draws of each sample for the fused kernel.

Legend: B batch, C codebook dim, H W grid, h w cropped grid, n blanks of a sample.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seit.augment.base import second_share
from seit.augment.beta import beta_weights
from seit.augment.config import AugmentConfig
from seit.augment.crop import (
    NUM_TRIES,
    aspect_ratios,
    fallback_shape,
    random_crop_boxes,
    ratio_in_cells,
)
from seit.augment.cutmix import cutmix_boxes
from seit.augment.erase import ERASED_RATIO, erase_boxes
from seit.augment.kernels.columns import PLAN_COLUMNS
from seit.augment.kernels.draws import draw_triton, signed_word
from seit.augment.masks import random_bands
from seit.augment.philox import Op
from seit.augment.random import SampleRandom

_BLOCK = 32
"""Samples per program."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Draws of a batch, all tensors on one device.

    Attributes:
        columns: (B, 10) int32, see :data:`seit.augment.kernels.columns.PLAN_COLUMNS`.
        positions: (B,) int64, positions of the samples in the epoch.
        key: key of the generator, two integers of 32 bits.
        shift: (B, C) float32, noise shift per channel, 0 for samples without it; None if unused.
        stds: (C,) float32, standard deviation of the noise of a channel's elements; None if unused.
        mixes: whether any sample may receive a box.
        blend: (B,) float32, 0–1, the sample's share of what Mixup makes of it and its partner, 1 if
            it is not blended; None if no sample may be.
        blanks: (B, n, 4) int32, boxes that are erased or masked before samples are mixed: top,
            left, bottom, right, the ends excluded; None if there are none.
        weight: (B,) float32, 0–1, weight of the sample's own label.
    """

    columns: Tensor
    positions: Tensor
    key: tuple[int, int]
    shift: Tensor | None
    stds: Tensor | None
    mixes: bool
    blend: Tensor | None
    blanks: Tensor | None
    weight: Tensor


def draw_plan(
    random: SampleRandom,
    config: AugmentConfig,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    num_channels: int,
    units: Tensor,
    partner: Tensor | None = None,
) -> Plan:
    """Draw crops, noise, blanks, CutMix boxes and Mixup weights as :class:`TokenAugment` does.

    Takes about 200 small operations in torch; :func:`draw_plan_triton` takes a few launches.

    Args:
        random: the samples' draws.
        config: the augmentations; edits of ids are not drawn.
        grid: (H, W).
        size: (h, w).
        num_channels: C.
        units: (C,) float32, unit of the noise in each channel.
        partner: (B,) integers, 0 to B − 1; None for the mirrored batch.

    Returns:
        The plan, on the device of ``random``.
    """
    num_samples, device = len(random), random.positions.device
    crops = random_crop_boxes(random, grid, scale=config.crop_scale, ratio=config.crop_ratio)
    noised, shift = _draw_noise(random, config, num_channels, units)
    if config.cutmix_prob > 0:
        boxes = cutmix_boxes(random, size, prob=config.cutmix_prob, alpha=config.cutmix_alpha)
    else:
        boxes = torch.zeros((num_samples, 4), dtype=torch.int64, device=device)
    if partner is None:
        partner = torch.arange(num_samples - 1, -1, -1, device=device)
    top, left, bottom, right = boxes.unbind(1)
    columns = torch.stack((*crops, top, left, bottom, right, partner.to(device), noised), dim=1)
    pasted = ((bottom - top) * (right - left)).to(torch.float32)
    weight, blend = 1 - pasted / (size[0] * size[1]), _draw_blend(random, config)
    if blend is not None:
        weight = weight * blend  # one of them is 1
    return Plan(
        columns=columns.to(torch.int32),
        positions=random.positions.contiguous(),
        key=random.key,
        shift=shift,
        stds=_element_stds(config, units),
        mixes=config.cutmix_prob > 0,
        blend=blend,
        blanks=_draw_blanks(random, config, size),
        weight=weight,
    )


def draw_plan_triton(
    random: SampleRandom,
    config: AugmentConfig,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    num_channels: int,
    units: Tensor,
    partner: Tensor | None = None,
) -> Plan:
    """Draw as :func:`draw_plan`, in Triton: bit for bit but for shifts, which are within 1e-5.

    Exponentials and logarithms are left to torch, so that results with and without Triton agree on
    a device: a crop may not differ by a cell. With the default settings these are three operations,
    in addition to three launches.
    """
    from seit.augment.kernels.programs.plan import plan_program

    num_samples, device = len(random), random.positions.device
    u = draw_triton(
        random.positions, random.key, Op.CROP_SHAPE, count=2 * NUM_TRIES, dtype=torch.float32
    )
    crop_ratio = ratio_in_cells(grid, config.crop_ratio)
    aspect = aspect_ratios(u[:, NUM_TRIES:], crop_ratio)
    mixes = config.cutmix_prob > 0
    share = beta_weights(random, alpha=config.cutmix_alpha) if mixes else None
    blend = own_share = erased_ratio = blanks = None
    if config.mixup_prob > 0:
        own_share = beta_weights(random, alpha=config.mixup_alpha, op=Op.MIXUP_WEIGHT)
        blend = torch.empty(num_samples, device=device)
    if config.erase_prob > 0:
        u = draw_triton(random.positions, random.key, Op.ERASE, count=3, dtype=torch.float32)
        erased_ratio = aspect_ratios(u[:, 2], ERASED_RATIO)
    if num_blanks := _num_blanks(config):
        blanks = torch.empty((num_samples, num_blanks, 4), dtype=torch.int32, device=device)
    columns = torch.empty((num_samples, PLAN_COLUMNS), dtype=torch.int32, device=device)
    weight = torch.empty(num_samples, device=device)
    shift = torch.empty((num_samples, num_channels), device=device) if _noises(config) else None
    positions = random.positions.contiguous()
    low, high = config.crop_scale
    if num_samples:
        with torch.cuda.device_of(positions):
            plan_program[(-(-num_samples // _BLOCK),)](
                positions,
                aspect.contiguous(),
                None if share is None else share.contiguous(),
                None if own_share is None else own_share.contiguous(),
                None if erased_ratio is None else erased_ratio.contiguous(),
                None if partner is None else partner.to(device, torch.int64).contiguous(),
                columns,
                shift,
                None if shift is None else (config.noise_scale * units).contiguous(),
                blend,
                blanks,
                weight,
                num_samples,
                *map(signed_word, random.key),
                low,
                high - low,
                config.noise_prob,
                config.cutmix_prob,
                config.cutmix_prob + config.mixup_prob,
                config.erase_prob,
                GRID=grid,
                SIZE=size,
                FALLBACK=fallback_shape(*grid, crop_ratio),
                FREQ_MASKS=config.freq_masks,
                FREQ_MOST=int(config.freq_mask_max * size[0]),
                TIME_MASKS=config.time_masks,
                TIME_MOST=int(config.time_mask_max * size[1]),
                C=num_channels,
                BLOCK=_BLOCK,
                num_warps=1,
                enable_fp_fusion=False,
            )
    return Plan(
        columns=columns,
        positions=positions,
        key=random.key,
        shift=shift,
        stds=_element_stds(config, units),
        mixes=mixes,
        blend=blend,
        blanks=blanks,
        weight=weight,
    )


def _num_blanks(config: AugmentConfig) -> int:
    return (config.erase_prob > 0) + config.freq_masks + config.time_masks


def _draw_blend(random: SampleRandom, config: AugmentConfig) -> Tensor | None:
    if config.mixup_prob == 0:
        return None
    u = random.uniform(Op.CUTMIX_GATE)
    selected = second_share(u, config.cutmix_prob, config.mixup_prob)
    own_share = beta_weights(random, alpha=config.mixup_alpha, op=Op.MIXUP_WEIGHT)
    return torch.where(selected, own_share, 1.0)


def _draw_blanks(
    random: SampleRandom, config: AugmentConfig, size: tuple[int, int]
) -> Tensor | None:
    """Return the boxes (B, n, 4): first the erased one, then bands of rows, then of columns."""
    if not _num_blanks(config):
        return None
    h, w = size
    boxes = []
    if config.erase_prob > 0:
        boxes.append(erase_boxes(random, size, prob=config.erase_prob)[:, None])
    freq, time = (
        (config.freq_masks, config.freq_mask_max),
        (config.time_masks, config.time_mask_max),
    )
    start, end = random_bands(random, Op.FREQ_MASK, h, num_masks=freq[0], max_share=freq[1])
    boxes.append(torch.stack((start, start * 0, end, torch.full_like(start, w)), dim=-1))
    start, end = random_bands(random, Op.TIME_MASK, w, num_masks=time[0], max_share=time[1])
    boxes.append(torch.stack((start * 0, start, torch.full_like(start, h), end), dim=-1))
    return torch.cat(boxes, dim=1).to(torch.int32).contiguous()


def _noises(config: AugmentConfig) -> bool:
    return config.noise_prob > 0 and (config.noise_scale > 0 or config.noise_std > 0)


def _element_stds(config: AugmentConfig, units: Tensor) -> Tensor | None:
    if not _noises(config) or config.noise_std == 0:
        return None
    return (config.noise_std * units).contiguous()


def _draw_noise(
    random: SampleRandom, config: AugmentConfig, num_channels: int, units: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the gates of noise, (B,) int64, and the shifts of the channels."""
    if not _noises(config):
        return torch.zeros_like(random.positions), None
    noised = random.uniform(Op.NOISE_GATE) < config.noise_prob
    shift = random.normal(Op.NOISE_CHANNEL, (num_channels,)) * (config.noise_scale * units)
    return noised.to(torch.int64), (shift * noised[:, None]).contiguous()
