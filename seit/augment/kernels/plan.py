"""Batch plans: all draws of each sample for the fused kernel.

Legend: B batch, C codebook dim, H W grid, h w cropped grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seit.augment.beta import beta_weights
from seit.augment.config import AugmentConfig
from seit.augment.crop import NUM_TRIES, aspect_ratios, fallback_shape, random_crop_boxes
from seit.augment.cutmix import cutmix_boxes
from seit.augment.kernels.columns import PLAN_COLUMNS
from seit.augment.kernels.draws import draw_triton, signed_word
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
        weight: (B,) float32, 0–1, weight of the sample's own label.
    """

    columns: Tensor
    positions: Tensor
    key: tuple[int, int]
    shift: Tensor | None
    stds: Tensor | None
    mixes: bool
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
    """Draw crops, noise gates, channel shifts and CutMix boxes as :class:`TokenAugment` does.

    Takes about 200 small operations in torch; :func:`draw_plan_triton` takes a few launches.

    Args:
        random: the samples' draws.
        config: the augmentations; uses crop, noise and CutMix.
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
    return Plan(
        columns=columns.to(torch.int32),
        positions=random.positions.contiguous(),
        key=random.key,
        shift=shift,
        stds=_element_stds(config, units),
        mixes=config.cutmix_prob > 0,
        weight=1 - pasted / (size[0] * size[1]),
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
    aspect = aspect_ratios(u[:, NUM_TRIES:], config.crop_ratio)
    mixes = config.cutmix_prob > 0
    share = beta_weights(random, alpha=config.cutmix_alpha) if mixes else None
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
                None if partner is None else partner.to(device, torch.int64).contiguous(),
                columns,
                shift,
                None if shift is None else (config.noise_scale * units).contiguous(),
                weight,
                num_samples,
                *map(signed_word, random.key),
                low,
                high - low,
                config.noise_prob,
                config.cutmix_prob,
                GRID=grid,
                SIZE=size,
                FALLBACK=fallback_shape(*grid, config.crop_ratio),
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
        weight=weight,
    )


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
