"""Emb-Noise: Gaussian noise on embedded tokens.

Legend: B batch, K codes, C codebook dim, h w cropped grid.
"""

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom


def codebook_unit(codebook: Tensor) -> float:
    """Return the RMS deviation of a codebook's elements from their channel's mean.

    The unit in which networks scale a codebook: one number for all channels. See
    :func:`channel_units` for single channels.

    Args:
        codebook: (K, C) floating point.

    Returns:
        A number ≥ 0, in the codebook's own unit.
    """
    return float(_variances(codebook).mean().sqrt())


def channel_units(codebook: Tensor) -> Tensor:
    """Return the standard deviation of each channel over the codes, equally weighted.

    The units of Emb-Noise. The paper gives absolute amplitudes, which fit only its own codebook,
    whose channels are alike; in these units, 1.0 is noise as strong as a channel's own variation,
    for every codebook and channel. Channels of a PCA differ by up to forty times: one unit for all
    would leave the first nearly unchanged and drown the last. If all channels vary alike, all are
    :func:`codebook_unit`.

    Args:
        codebook: (K, C) floating point.

    Returns:
        (C,) float64 ≥ 0 on the CPU, in the codebook's own unit.
    """
    return _variances(codebook).sqrt()


def _variances(codebook: Tensor) -> Tensor:
    """Return the variance of each channel, (C,) float64 on the CPU."""
    codes = codebook.detach().to("cpu", torch.float64)
    return (codes - codes.mean(dim=0)).square().mean(dim=0)


def add_noise_(
    x: Tensor, random: SampleRandom, *, prob: float, scale: float, std: float, units: Tensor
) -> Tensor:
    """Add noise, in place, to a random part of the samples. For training only.

    Emb-Noise of SeiT (arXiv 2303.11114): x += unit · (scale · N(0, 1) + std · N(0, 1)), the first
    normal drawn once per sample and channel, the second for every element, the unit the channel's.
    The paper's scale and std are 1.0, on half of the samples. Unlike the official code, which also
    adds noise in validation, nothing here runs at evaluation.

    Args:
        x: (B, C, h, w) float32; **overwritten**.
        random: the samples' draws.
        prob: a sample's probability of getting noise, 0–1.
        scale: standard deviation of a channel's shift, in its unit, ≥ 0.
        std: standard deviation of an element's noise, in its channel's unit, ≥ 0.
        units: (C,) floating point on the device of ``x``, usually :func:`channel_units`.

    Returns:
        ``x``.
    """
    if prob == 0 or (scale == 0 and std == 0):
        return x
    chosen = random.uniform(Op.NOISE_GATE) < prob
    add = _add_to_chosen if x.device.type == "cpu" else _add_masked
    return add(x, random, chosen, scale * units, std * units)


def _add_to_chosen(
    x: Tensor, random: SampleRandom, chosen: Tensor, scales: Tensor, stds: Tensor
) -> Tensor:
    """Draw for the chosen samples only, whose number must be known on the host."""
    index = chosen.nonzero().squeeze(1)
    return x.index_add_(0, index, _noise(x.shape[1:], random.select(index), scales, stds))


def _add_masked(
    x: Tensor, random: SampleRandom, chosen: Tensor, scales: Tensor, stds: Tensor
) -> Tensor:
    """Draw for all samples and add to the chosen ones: the same result without synchronization."""
    return x.addcmul_(
        _noise(x.shape[1:], random, scales, stds), chosen.to(x.dtype)[:, None, None, None]
    )


def _noise(shape: torch.Size, random: SampleRandom, scales: Tensor, stds: Tensor) -> Tensor:
    C, h, w = shape
    noise = random.normal(Op.NOISE_ELEMENT, (C, h, w)).mul_(stds.float()[:, None, None])
    shifts = random.normal(Op.NOISE_CHANNEL, (C, 1, 1))
    return noise.addcmul_(shifts, scales.float()[:, None, None])
