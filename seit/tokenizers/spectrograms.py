"""Spectrograms of waves that a codec decoded, for pictures.

Legend: B windows, T samples, M bands, F frames.
"""

import torch
from torch import Tensor

from seit.tokenizers.mel import SAMPLE_RATES, MelConfig, MelFrontEnd

_BANDS = 96
_FRAMES = 192


def wave_levels(waves: Tensor, sample_rate: int) -> Tensor:
    """Return mel spectrograms float32 (B, M, F) in dB of waves float32 (B, T)."""
    window = waves.shape[-1]
    hop = max(1, -(-window // _FRAMES))
    taper = min(1024, max(16, 2 * hop))
    low, high = SAMPLE_RATES
    config = MelConfig(
        sample_rate=min(max(sample_rate, low), high),
        window=window,
        hop=hop,
        taper=taper,
        fft=1024,
        bands=_BANDS,
        frames=-(-window // hop),
        patch=(1, 1),
    )
    return MelFrontEnd.unfitted(config).levels(waves.to(torch.float32).cpu())
