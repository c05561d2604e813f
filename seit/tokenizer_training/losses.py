"""Reconstruction loss, and the discriminator's hinge loss.

Legend: B batch, P planes, Y X height and width.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import ms_ssim


class Reconstruction(NamedTuple):
    """Distance between reconstructions and originals."""

    loss: Tensor
    """Weighted sum, a scalar."""
    psnr_db: Tensor
    """Mean PSNR over the batch in dB, before rounding of values; a scalar without gradient."""
    ms_ssim: Tensor
    """Mean MS-SSIM over the batch; a scalar without gradient."""


def reconstruction(rebuilt: Tensor, planes: Tensor, config: TokenizerConfig) -> Reconstruction:
    """Compare planes (B, P, Y, X) with values −1…1; losses are computed on values 0–1."""
    error = (rebuilt - planes) / 2
    squared = error.square()
    similarity = ms_ssim(rebuilt / 2 + 0.5, planes / 2 + 0.5).mean()
    loss = (
        config.l1 * error.abs().mean() + config.l2 * squared.mean() + config.ssim * (1 - similarity)
    )
    psnr = -10 * squared.detach().mean((1, 2, 3)).clamp(min=1e-12).log10().mean()
    return Reconstruction(loss, psnr, similarity.detach())


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator's scores of originals and reconstructions."""
    return (functional.relu(1 - real).mean() + functional.relu(1 + made).mean()) / 2
