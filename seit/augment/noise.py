"""Emb-Noise: Gaussian noise on embedded tokens.

Legend: B batch, K codes, C codebook dim, h w cropped grid.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op, SampleRandom


def codebook_unit(codebook: Tensor) -> float:
    """RMS deviation of a codebook's elements from their channel's mean, all codes alike.

    The unit of Emb-Noise. The paper gives absolute amplitudes, which mean something for its own
    codebook only; counted in this unit, 1.0 is noise as strong as the codebook's own variation for
    every codebook.

    Args:
        codebook: (K, C) floating point.

    Returns:
        A number ≥ 0, in the codebook's own unit.
    """
    codes = codebook.detach().to("cpu", torch.float64)
    return float((codes - codes.mean(dim=0)).square().mean().sqrt())


def add_noise_(
    x: Tensor, random: SampleRandom, *, prob: float, scale: float, std: float, unit: float
) -> Tensor:
    """Add noise, in place, to a random part of the samples. For training only.

    Emb-Noise of SeiT (arXiv 2303.11114): x += unit · (scale · N(0, 1) + std · N(0, 1)), the first
    normal drawn once per sample and channel, the second for every element. The paper's scale and
    std are 1.0, on half of the samples. Unlike the official code, which noises validation as well,
    nothing here runs at evaluation.

    Args:
        x: (B, C, h, w) float32; **overwritten**.
        random: the samples' draws.
        prob: a sample's probability of being noised, 0–1.
        scale: standard deviation of a channel's shift, in units, ≥ 0.
        std: standard deviation of an element's noise, in units, ≥ 0.
        unit: what the amplitudes count, usually :func:`codebook_unit`.

    Returns:
        ``x``.
    """
    if prob == 0 or (scale == 0 and std == 0):
        return x
    chosen = random.uniform(Op.NOISE_GATE) < prob
    add = _add_to_chosen if x.device.type == "cpu" else _add_masked
    return add(x, random, chosen, scale * unit, std * unit)


def _add_to_chosen(
    x: Tensor, random: SampleRandom, chosen: Tensor, scale: float, std: float
) -> Tensor:
    """Draw for the chosen samples alone, which needs to know how many they are."""
    index = chosen.nonzero().squeeze(1)
    return x.index_add_(0, index, _noise(x.shape[1:], random.select(index), scale, std))


def _add_masked(
    x: Tensor, random: SampleRandom, chosen: Tensor, scale: float, std: float
) -> Tensor:
    """Draw for all and add to the chosen: the same result, without waiting for the device."""
    return x.addcmul_(
        _noise(x.shape[1:], random, scale, std), chosen.to(x.dtype)[:, None, None, None]
    )


def _noise(shape: torch.Size, random: SampleRandom, scale: float, std: float) -> Tensor:
    C, h, w = shape
    noise = random.normal(Op.NOISE_ELEMENT, (C, h, w)).mul_(std)
    return noise.add_(random.normal(Op.NOISE_CHANNEL, (C, 1, 1)), alpha=scale)
