"""Random resized crops, as two matrices per sample, and center crops.

Legend: B batch, C channels, H W grid, h w cropped grid, T tries.

Resampling an image is linear along each axis, so a sample's crop-and-resize is X → R X Sᵀ with a
matrix R (h, H) for its rows and S (w, W) for its columns. The codebook look-up is linear in the
one-hot vector of a code, so looking up first and resampling C channels equals the official order,
which resamples K one-hot channels and multiplies by the codebook afterwards.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seit.augment.config import Interpolation
from seit.augment.philox import Op
from seit.augment.random import SampleRandom

NUM_TRIES = 10
"""Shapes drawn for a random crop; the first that fits is used."""
_CUBIC_A = -0.75


class CropBoxes(NamedTuple):
    """Crop of each sample; all (B,) int64, in grid cells."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def random_crop_boxes(
    random: SampleRandom,
    size: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> CropBoxes:
    """Draw a crop per sample; on square grids, distributed as torchvision's RandomResizedCrop.

    Draws ten times an area fraction, uniform in ``scale``, and a width-to-height ratio, log-uniform
    in ``ratio`` times the grid's own; places the first rounded shape that fits the grid uniformly.
    If none fits, takes the largest center crop with a ratio within bounds. Crops are resized to the
    proportions of their grid, so a relative ratio of 1 stretches nothing, as torchvision's 1 does
    for square outputs, and with a scale of 1 it is the whole grid.

    Args:
        random: the samples' draws.
        size: (H, W).
        scale: range of the area fraction, above 0, at most 1.
        ratio: range of width / height, relative to W / H, above 0.

    Returns:
        Boxes within the grid, at least one cell large.
    """
    H, W = size
    ratio = ratio_in_cells(size, ratio)
    u = random.uniform(Op.CROP_SHAPE, (2, NUM_TRIES))
    area = (scale[0] + (scale[1] - scale[0]) * u[:, 0]) * (H * W)
    aspect = aspect_ratios(u[:, 1], ratio)
    heights = (area / aspect).sqrt().round().to(torch.int64)
    widths = (area * aspect).sqrt().round().to(torch.int64)
    fits = (heights > 0) & (heights <= H) & (widths > 0) & (widths <= W)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)

    fallback_height, fallback_width = fallback_shape(H, W, ratio)
    height = torch.where(found, heights.gather(1, first).squeeze(1), fallback_height)
    width = torch.where(found, widths.gather(1, first).squeeze(1), fallback_width)
    room = torch.stack((H - height, W - width), dim=1)
    corner = torch.where(found[:, None], random.randint(Op.CROP_PLACE, room + 1, (2,)), room // 2)
    return CropBoxes(corner[:, 0], corner[:, 1], height, width)


def ratio_in_cells(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[float, float]:
    """Convert a range of width / height relative to a grid (H, W) to one in cells."""
    own = size[1] / size[0]
    return ratio[0] * own, ratio[1] * own


def aspect_ratios(u: Tensor, ratio: tuple[float, float]) -> Tensor:
    """Map uniform numbers in [0, 1) to log-uniform ratios within bounds."""
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    return torch.exp(log_low + (log_high - log_low) * u)


def fallback_shape(H: int, W: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return the largest shape with a ratio in cells within bounds, rounded, at least one cell."""
    low, high = ratio
    if low * H > W:
        return max(1, round(W / low)), W
    if high * H < W:
        return H, max(1, round(H * high))
    return H, W


def resize_matrices(
    starts: Tensor,
    lengths: Tensor,
    *,
    in_size: int,
    out_size: int,
    mode: Interpolation = "bicubic",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return for each sample the matrix that crops one axis and resizes the crop.

    Equals ``F.interpolate(x[..., start:start + length], out_size)`` in modes ``bicubic`` (Keys'
    cubic convolution, a = −0.75) and ``bilinear``, with align_corners and antialias off: positions
    beyond the crop repeat the crop's own border, not the adjacent cells.

    Args:
        starts: (B,) int64, first cell of the crop.
        lengths: (B,) int64, cells in the crop, at least 1; start + length ≤ in_size.
        in_size: cells of the axis.
        out_size: cells of the resized crop.
        mode: the interpolation.
        dtype: dtype of the result and of the computation.

    Returns:
        (B, out_size, in_size); every row sums to 1.
    """
    device = starts.device
    step = (lengths.to(dtype) / out_size)[:, None]
    place = step * (torch.arange(out_size, device=device, dtype=dtype) + 0.5) - 0.5
    below = place.floor()
    fraction = place - below
    matrices = torch.zeros((len(starts), out_size, in_size), dtype=dtype, device=device)
    last = (lengths - 1)[:, None]
    for tap in (-1, 0, 1, 2) if mode == "bicubic" else (0, 1):
        cell = below.to(torch.int64).add_(tap).clamp_(min=0).minimum(last) + starts[:, None]
        distance = (fraction - tap).abs()
        weight = _cubic(distance) if mode == "bicubic" else 1 - distance
        # One tap at a time: no row has two additions whose order could vary.
        matrices.scatter_add_(2, cell[..., None], weight[..., None])
    return matrices


def _cubic(distance: Tensor) -> Tensor:
    """Evaluate Keys' kernel at distances 0 to 2 from a cell's center."""
    a = _CUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, far)


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply each sample's two matrices, in the inputs' precision even under autocast.

    Args:
        x: (B, C, H, W) floating point.
        rows: (B, h, H), from :func:`resize_matrices`.
        columns: (B, w, W), likewise.

    Returns:
        (B, C, h, w), contiguous.
    """
    B, C, H, W = x.shape
    h, w = rows.shape[1], columns.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        # Channels-last inside, the layout of a look-up's result, so the first step copies nothing.
        y = rows @ x.permute(0, 2, 3, 1).reshape(B, H, W * C)
        y = y.view(B, h, W, C).permute(0, 3, 1, 2).reshape(B, C * h, W)
        return (y @ columns.mT).view(B, C, h, w)


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the center of the last two axes, rounded by torchvision's rule.

    Args:
        x: (…, H, W), any dtype.
        size: (h, w), at most (H, W).

    Returns:
        (…, h, w), a view.
    """
    H, W = x.shape[-2:]
    h, w = size
    top, left = round((H - h) / 2), round((W - w) / 2)
    return x[..., top : top + h, left : left + w]
