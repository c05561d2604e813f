"""Quantization of vectors to their nearest codes.

Legend: B batch, K codes, C codebook dim, h w cells.
"""

import torch
from torch import Tensor

_CHUNK_DISTANCES = {"cpu": 1 << 23}
"""Distances computed at a time: as many as fit a CPU's caches, elsewhere 2²⁸."""


@torch.no_grad()
def nearest_ids(x_BChw: Tensor, codebook_KC: Tensor) -> Tensor:
    """Return the nearest code of each vector, int64 (B, h, w).

    Distances are Euclidean; for codes of unit length, such as ViT-VQGAN's, the nearest code is also
    that of the largest cosine, which SeiT++'s code uses.

    Args:
        x_BChw: (B, C, h, w) floating point.
        codebook_KC: (K, C) float32.
    """
    B, C, h, w = x_BChw.shape
    rows = x_BChw.permute(0, 2, 3, 1).reshape(-1, C).to(codebook_KC.dtype)
    half_norms_K = codebook_KC.square().sum(dim=1) / 2
    chunk = max(1, _CHUNK_DISTANCES.get(rows.device.type, 1 << 28) // len(codebook_KC))
    # argmin |x − c|² = argmin |c|²/2 − x·c
    parts = [
        torch.addmm(half_norms_K, part, codebook_KC.T, alpha=-1).argmin(dim=1)
        for part in rows.split(chunk)
    ]
    return torch.cat(parts).view(B, h, w)
