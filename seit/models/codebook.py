"""Normalization of codebooks for networks.

Legend: K codes, C codebook dim.
"""

import torch
from torch import Tensor

from seit.augment import codebook_unit


def standardised(codebook_KC: Tensor) -> Tensor:
    """Return codes of mean 0 and RMS 1, float32 (K, C)."""
    codes = codebook_KC.detach().to(torch.float32)
    mean_C, unit = location_and_scale(codes)
    return (codes - mean_C) / unit


def location_and_scale(codebook_KC: Tensor) -> tuple[Tensor, float]:
    """Return the mean (C,) of a float32 codebook and the RMS deviation from it, or 1 for 0."""
    unit = 1.0 if codebook_KC.is_meta else codebook_unit(codebook_KC) or 1.0
    return codebook_KC.mean(dim=0), unit
