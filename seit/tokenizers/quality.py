"""What a tokenizer keeps: PSNR of its reconstructions and how evenly its codes are used.

Shape letters: B images, S image side, K codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from seit.tokenizers.base import Tokenizer

_BATCH = 64


@dataclass(frozen=True)
class Quality:
    """Reconstruction quality over ``images`` images.

    Attributes:
        images: how many images were looked at.
        psnr_db: mean over images of 10·log10(255² / MSE), in dB.
        codebook_usage: fraction of the K codes that occur, 0–1.
        perplexity: 2 to the entropy of the code frequencies, 1…K.
    """

    images: int
    psnr_db: float
    codebook_usage: float
    perplexity: float


def measure_quality(tokenizer: Tokenizer, images: Tensor) -> Quality:
    """Encode and decode images uint8 (B, S, S, 3), B ≥ 1."""
    counts_K = torch.zeros(tokenizer.num_codes, dtype=torch.int64)
    psnr: list[Tensor] = []
    for batch in images.split(_BATCH):
        tokens = tokenizer.encode(batch)
        error = tokenizer.decode(tokens).cpu().double() - batch.cpu().double()
        mse_B = error.square().flatten(1).mean(1).clamp(min=1e-12)
        psnr.append(10 * torch.log10(255**2 / mse_B))
        counts_K += torch.bincount(tokens.flatten().cpu(), minlength=tokenizer.num_codes)
    share = counts_K[counts_K > 0].double() / counts_K.sum()
    return Quality(
        images=len(images),
        psnr_db=float(torch.cat(psnr).mean()),
        codebook_usage=float((counts_K > 0).double().mean()),
        perplexity=float(torch.exp2(-(share * share.log2()).sum())),
    )
