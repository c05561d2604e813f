"""Crops and mixing for tokens and pixels, and the augmented batch.

Legend: B batch, H W grid, h w cropped grid, C channels (of tokens: codebook dim).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from seit.augment.config import AugmentConfig
from seit.augment.crop import random_crop_boxes, resample, resize_matrices
from seit.augment.cutmix import apply_cutmix
from seit.augment.mixup import apply_mixup
from seit.augment.philox import Op
from seit.augment.random import SampleRandom
from seit.errors import UsageError


class Augmented(NamedTuple):
    """Training batch with two weighted labels for each input.

    Attributes:
        inputs: (B, C, h, w) float32, contiguous.
        labels: (B,) int64, the samples' own labels.
        partner_labels: (B,) int64, labels of the pasted or blended samples.
        weight: (B,) float32, 0–1: loss = weight · loss(labels) + (1 − weight) ·
            loss(partner_labels).
    """

    inputs: Tensor
    labels: Tensor
    partner_labels: Tensor
    weight: Tensor


class CropAndMix(nn.Module):
    """Base for tokens and pixels: the crop's geometry, CutMix and Mixup with their labels."""

    def __init__(self, grid: tuple[int, int], channels: int, config: AugmentConfig) -> None:
        super().__init__()
        self.grid = (grid[0], grid[1])
        """Cells (H, W) of a sample before cropping."""
        self.config = config
        self.channels = channels
        """Channels C of the inputs."""
        self.output_size = crop_size_of(grid, config.crop_size)
        """Cells (h, w) of the inputs."""

    def random_crop(self, x: Tensor, random: SampleRandom) -> Tensor:
        """Crop and resize (B, C, H, W) floating point → (B, C, h, w)."""
        config, (H, W), (h, w) = self.config, self.grid, self.output_size
        box = random_crop_boxes(random, self.grid, scale=config.crop_scale, ratio=config.crop_ratio)
        mode = config.interpolation
        rows = resize_matrices(box.top, box.height, in_size=H, out_size=h, mode=mode)
        columns = resize_matrices(box.left, box.width, in_size=W, out_size=w, mode=mode)
        return resample(x, rows, columns)

    def mix(
        self, x: Tensor, labels: Tensor, random: SampleRandom, partner: Tensor | None
    ) -> Augmented:
        """Apply one of {CutMix, Mixup, nothing} to each sample of (B, C, h, w) and its label."""
        config = self.config
        inputs, weight, _ = apply_cutmix(
            x, random, prob=config.cutmix_prob, alpha=config.cutmix_alpha, partner=partner
        )
        if config.mixup_prob > 0:
            u = random.uniform(Op.CUTMIX_GATE)
            selected = second_share(u, config.cutmix_prob, config.mixup_prob)
            blended, own_share = apply_mixup(
                x, random, alpha=config.mixup_alpha, selected=selected, partner=partner
            )
            inputs = torch.where(selected[:, None, None, None], blended, inputs)
            weight = torch.where(selected, own_share, weight)
        partner_labels = labels.flip(0) if partner is None else labels.index_select(0, partner)
        return Augmented(inputs, labels, partner_labels, weight)

    def check_batch(self, x: Tensor, expected: tuple[int, ...]) -> None:
        """Raise a `UsageError` for a batch that is not (B, *expected) integers."""
        if x.shape[1:] != expected or x.is_floating_point():
            raise UsageError(
                f"the batch is {tuple(x.shape)} of {x.dtype}; expected (B, "
                f"{', '.join(map(str, expected))}) integers: build the augmentation for the grid "
                "of the store that is read"
            )


def second_share(u: Tensor, first: float, second: float) -> Tensor:
    """Return (B,) bool: the samples that get the second of two mutually exclusive operations."""
    return (u >= first) & (u < first + second)


def crop_size_of(grid: tuple[int, int], crop_size: int) -> tuple[int, int]:
    """Return rows and columns of a grid's crop, from `AugmentConfig.crop_size`.

    Raises:
        UsageError: the grid is smaller.
    """
    H, W = grid
    if crop_size == 0:
        return max(1, round(H * 7 / 8)), max(1, round(W * 7 / 8))
    if crop_size > min(grid):
        raise UsageError(
            f"crop_size is {crop_size} for a grid of {H} × {W}; expected at most {min(grid)}, or "
            "0 for 7/8 of the grid: lower it"
        )
    return round(H * crop_size / min(grid)), round(W * crop_size / min(grid))


def sample_random(x: Tensor, positions: Tensor, seed: int, epoch: int) -> SampleRandom:
    """Return the draws of a batch's samples, on the device of the batch."""
    if positions.shape != x.shape[:1]:
        raise UsageError(
            f"positions are {tuple(positions.shape)} for a batch of {len(x)}; expected "
            f"({len(x)},): pass one global position per sample"
        )
    return SampleRandom(seed, epoch, positions.to(x.device, non_blocking=True))
