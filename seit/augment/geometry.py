"""Flips, rotations, shifts, shears and crops in one resampling: the geometry of TokenAdapt.

Legend: B batch, C channels, H W grid, h w warped grid.

A warp is an affine map from a cell's place in the result to its source, both from −1 to 1 between
the outer edges, as (x, y), as in ``F.affine_grid``. So one warp fits an image, its token grid and
any grid between.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.augment.crop import random_crop_boxes
from seit.augment.philox import Op
from seit.augment.random import SampleRandom
from seit.errors import UsageError

WarpMode = Literal["bicubic", "bilinear", "nearest"]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Distribution of warps; the defaults are TokenAdapt's (SeiT++, arXiv 2312.10105).

    Raises:
        UsageError: a value is out of range.

    Attributes:
        flip_prob: probability of a horizontal flip.
        affine_prob: probability that a sample may be rotated, shifted and sheared.
        part_prob: for these samples, independent probability of each of five operations: a
            rotation, a shift along x, one along y, a shear along x, one along y.
        max_degrees: maximum rotation either way, 0–180.
        max_shift: maximum shift either way along each axis, as a fraction of that axis, 0–1.
        max_shear: maximum shear along each axis, in degrees, 0–80; one way only, as in
            TokenAdapt's code.
        crop_scale: range of the crop's area fraction, above 0, at most 1.
        crop_ratio: range of width / height of the crop, relative to the grid's own.
    """

    flip_prob: float = 0.5
    affine_prob: float = 0.5
    part_prob: float = 0.5
    max_degrees: float = 30.0
    max_shift: float = 0.2
    max_shear: float = 15.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        most = {"max_degrees": 180.0, "max_shift": 1.0, "max_shear": 80.0}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                high = 1.0 if field.name == "crop_scale" else 1e6
                if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
                    raise UsageError(
                        f"{field.name} is {value}; expected two numbers, the lower first, above 0 "
                        f"and at most {high:g}: choose a range within"
                    )
            elif not 0 <= value <= most.get(field.name, 1.0):
                raise UsageError(
                    f"{field.name} is {value}; expected 0 to {most.get(field.name, 1.0):g}: choose "
                    "a value within"
                )


def random_warps(random: SampleRandom, size: tuple[int, int], geometry: Geometry) -> Tensor:
    """Draw a warp per sample: flip, rotation, both shifts, both shears, random resized crop.

    The maps are those of torchvision's ``hflip``, of ``affine`` called for each operation in that
    order, and of ``resized_crop``; the crop's boxes are those of :func:`random_crop_boxes`. The
    official code resamples after each operation and draws all but the crop once per half batch;
    here each sample has its own draws, in one map.

    Args:
        random: the samples' draws.
        size: (H, W), in whose cells crops are rounded and rotations keep their angles.
        geometry: the distribution.

    Returns:
        (B, 2, 3) float32.
    """
    H, W = size
    u = random.uniform(Op.ADAPT_GEOMETRY, (12,))
    mirror = torch.where(u[:, 0] < geometry.flip_prob, -1.0, 1.0)
    # Gates of the rotation, of the shifts along x and y and of the shears along x and y.
    gates = u[:, [2, 3, 10, 4, 11]] < geometry.part_prob
    parts = (u[:, 1:2] < geometry.affine_prob) & gates
    signed, zero = 2 * u[:, 5:8] - 1, u.new_zeros(())
    angle = torch.where(parts[:, 0], signed[:, 0] * math.radians(geometry.max_degrees), zero)
    shift = torch.where(parts[:, 1:3], signed[:, 1:] * geometry.max_shift, zero)
    shear = torch.where(parts[:, 3:], (u[:, 8:10] * math.radians(geometry.max_shear)).tan(), zero)
    box = random_crop_boxes(random, size, scale=geometry.crop_scale, ratio=geometry.crop_ratio)
    # In cells, from the grid's center: result → place in the crop → before the affine map → flip.
    half = torch.stack((box.width, box.height), dim=1) / 2
    centre = torch.stack((box.left, box.top), dim=1) + half - half.new_tensor((W / 2, H / 2))
    unturn = _inverse_rotation(angle)
    back = unturn @ _inverse_shears(shear)
    moved = unturn @ (shift * half.new_tensor((W, H)))[..., None]
    warps = torch.cat((back * half[:, None], back @ centre[..., None] - moved), dim=2)
    warps[:, 0] *= mirror[:, None]
    return warps / half.new_tensor((W / 2, H / 2))[:, None]


def _inverse_rotation(angle: Tensor) -> Tensor:
    """Return (B, 2, 2) that undoes a rotation."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)


def _inverse_shears(shear: Tensor) -> Tensor:
    """Return (B, 2, 2) that undoes shears along y, then x; ``shear`` (B, 2) holds tangents."""
    x, y = shear.unbind(1)
    one = torch.ones_like(x)
    return torch.stack((1 + x * y, x, y, one), dim=1).view(-1, 2, 2)


def warp(x: Tensor, warps: Tensor, size: tuple[int, int], *, mode: WarpMode = "bicubic") -> Tensor:
    """Resample each sample along its warp; cells from outside are 0.

    Args:
        x: (B, C, H, W) floating point.
        warps: (B, 2, 3), from :func:`random_warps`.
        size: (h, w).
        mode: interpolation; ``bicubic``, as in TokenAdapt's crops, is Keys' with a = −0.75 and may
            exceed the range of ``x``.

    Returns:
        (B, C, h, w), of the same dtype.
    """
    places = F.affine_grid(warps, [len(x), 1, *size], align_corners=False)
    inside = (places.abs() <= 1).all(dim=-1)
    # Repeat the border, so that an image's edge is not mixed with the outside.
    y = F.grid_sample(x, places.to(x.dtype), mode=mode, padding_mode="border", align_corners=False)
    return y * inside[:, None]


class TokenWarper(nn.Module, ABC):
    """Protocol of ``seit.models.TokenAdapt``: warps token grids like their images."""

    @abstractmethod
    def warp_vectors(self, x: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        """Lift embedded grids to maps in which warping is meaningful, and warp the maps.

        Args:
            x: (B, C, H, W) floating point, in the codebook's unit; need not be codes.
            warps: (B, 2, 3), from :func:`random_warps`.
            size: (h, w) of the grids to read.

        Returns:
            (B, C', 2h, 2w), in which samples may be mixed.
        """

    @abstractmethod
    def read_tokens(self, maps: Tensor) -> Tensor:
        """Read the tokens of warped maps (B, C', 2h, 2w): (B, h, w) int64, 0 to K − 1."""

    @abstractmethod
    def warp_tokens(self, tokens: Tensor, warps: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the tokens of the warped images.

        Args:
            tokens: (B, H, W) int64, 0 to K − 1.
            warps: (B, 2, 3), from :func:`random_warps`.
            size: (h, w).

        Returns:
            (B, h, w) int64, 0 to K − 1.
        """
