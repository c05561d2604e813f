"""Structural similarity of pictures: SSIM and MS-SSIM.

Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
similarity" (2004), and Wang, Simoncelli and Bovik, "Multiscale structural similarity for image
quality assessment" (2003): Gaussian windows of 11 (σ 1.5), valid parts only. Colors count alike.

Legend: B batch, P planes, Y X height and width.
"""

import torch
from torch import Tensor
from torch.nn import functional

MIN_SIDE = 11
"""Least height and width of planes: those of the window."""
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Published weights of the five scales of MS-SSIM, finest first."""


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean structural similarity of planes (B, P, Y, X) with values 0–1.

    Returns:
        float (B,), at most 1; equal planes give 1.
    """
    luminance, contrast = _ssim(first, second)
    return (luminance * contrast).mean((1, 2, 3))


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of planes (B, P, Y, X) with values 0–1.

    Small images have as many scales as windows fit; their published weights are rescaled to sum
    to 1.

    Returns:
        float (B,), at most 1; equal planes give 1.
    """
    levels = num_scales(first.shape[-2:])
    weights = torch.tensor(SCALE_WEIGHTS[:levels])
    weights = (weights / weights.sum()).to(first)
    product = torch.ones(len(first), device=first.device, dtype=first.dtype)
    for level in range(levels):
        luminance, contrast = _ssim(first, second)
        if level + 1 == levels:
            contrast = luminance * contrast
        product = product * contrast.mean((1, 2, 3)).clamp(min=1e-6) ** weights[level]
        first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
    return product


def num_scales(size: tuple[int, int] | torch.Size) -> int:
    """Return the number of scales for planes of size (Y, X): 1 to 5."""
    side = min(size)
    assert side >= MIN_SIDE, "planes smaller than the window"
    return min(len(SCALE_WEIGHTS), (side // MIN_SIDE).bit_length())


def _ssim(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the luminance term, and the contrast and structure term, at each position."""
    planes = first.shape[1]
    stacked = torch.cat((first, second, first * first, second * second, first * second), 1)
    means, others, squares, other_squares, products = _blur(stacked).split(planes, 1)
    mean_product = means * others
    sigma = squares - means * means + other_squares - others * others
    luminance = (2 * mean_product + _C1) / (means * means + others * others + _C1)
    contrast = (2 * (products - mean_product) + _C2) / (sigma + _C2)
    return luminance, contrast


def _blur(planes: Tensor) -> Tensor:
    """Apply a separable Gaussian window, keeping the valid part."""
    places = torch.arange(MIN_SIDE, device=planes.device, dtype=planes.dtype) - MIN_SIDE // 2
    window = torch.exp(-(places**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(planes.shape[1], 1, -1)
    planes = functional.conv2d(planes, window[:, :, :, None], groups=planes.shape[1])
    return functional.conv2d(planes, window[:, :, None, :], groups=planes.shape[1])
