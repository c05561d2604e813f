"""What a tokenizer keeps of images: reconstructions, how evenly its codes are used, and its speed.

Shape letters: B images, S image side, K codes, L levels.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seit.tokenizers.base import Tokenizer
from seit.tokenizers.similarity import MIN_SIDE, ms_ssim, ssim

_BATCH = 64
_SIMILARITY_BATCH = 8


@dataclass(frozen=True)
class Quality:
    """Reconstruction quality over ``images`` images.

    Attributes:
        images: how many images were looked at.
        psnr_db: mean over images of 10·log10(255² / MSE), in dB.
        codebook_usage: fraction of the K codes that occur, 0–1; mean over levels.
        perplexity: 2 to the entropy of the code frequencies, 1…K; mean over levels.
    """

    images: int
    psnr_db: float
    codebook_usage: float
    perplexity: float


@dataclass(frozen=True)
class Measurement(Quality):
    """A :class:`Quality` with what a comparison of tokenizers asks for besides.

    Attributes:
        ssim: mean over images, at most 1; see :mod:`seit.tokenizers.similarity`.
        ms_ssim: the same on several scales.
        entropy_bits: of the code frequencies, bits per token; what a coder without context needs.
        images_per_second: of encoding alone, on the tokenizer's device.
    """

    ssim: float
    ms_ssim: float
    entropy_bits: float
    images_per_second: float


def measure_quality(tokenizer: Tokenizer, images: Tensor) -> Quality:
    """Encode and decode images uint8 (B, S, S, 3), B ≥ 1."""
    psnr: list[Tensor] = []
    counts_LK = torch.zeros(tokenizer.levels, tokenizer.num_codes, dtype=torch.int64)
    for batch in images.split(_BATCH):
        tokens = tokenizer.encode(batch)
        psnr.append(_psnr(batch.cpu(), tokenizer.decode(tokens).cpu()))
        counts_LK += _counts(tokenizer, tokens)
    entropy_L = _entropy(counts_LK)
    return Quality(
        images=len(images),
        psnr_db=float(torch.cat(psnr).mean()),
        codebook_usage=float((counts_LK > 0).double().mean()),
        perplexity=float(torch.exp2(entropy_L).mean()),
    )


def measure(tokenizer: Tokenizer, batches: Iterable[Tensor]) -> Measurement:
    """Encode and decode batches of images uint8 (B, S, S, 3), at least one image, S ≥ 11.

    The first batch is encoded twice: once to warm up, once to be timed.
    """
    psnr: list[Tensor] = []
    structure: list[tuple[Tensor, Tensor]] = []
    counts_LK = torch.zeros(tokenizer.levels, tokenizer.num_codes, dtype=torch.int64)
    seconds = 0.0
    for batch in batches:
        assert batch.shape[1] >= MIN_SIDE, "smaller than the windows of SSIM"
        if not psnr:
            tokenizer.encode(batch)
        started = time.perf_counter()
        tokens = tokenizer.encode(batch).cpu()
        seconds += time.perf_counter() - started
        rebuilt = tokenizer.decode(tokens).cpu()
        psnr.append(_psnr(batch.cpu(), rebuilt))
        structure += _similarities(batch.cpu(), rebuilt)
        counts_LK += _counts(tokenizer, tokens)
    assert psnr, "no images"
    psnr_B = torch.cat(psnr)
    entropy_L = _entropy(counts_LK)
    plain, scales = (torch.cat(parts) for parts in zip(*structure, strict=True))
    return Measurement(
        images=len(psnr_B),
        psnr_db=float(psnr_B.mean()),
        codebook_usage=float((counts_LK > 0).double().mean()),
        perplexity=float(torch.exp2(entropy_L).mean()),
        ssim=float(plain.mean()),
        ms_ssim=float(scales.mean()),
        entropy_bits=float(entropy_L.mean()),
        images_per_second=len(psnr_B) / seconds,
    )


def _psnr(images: Tensor, rebuilt: Tensor) -> Tensor:
    """In dB, of each image: float64 (B,)."""
    error = rebuilt.double() - images.double()
    mse_B = error.square().flatten(1).mean(1).clamp(min=1e-12)
    return 10 * torch.log10(255**2 / mse_B)


def _similarities(images: Tensor, rebuilt: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """SSIM and MS-SSIM of a few images at a time."""
    for parts in zip(
        images.split(_SIMILARITY_BATCH), rebuilt.split(_SIMILARITY_BATCH), strict=True
    ):
        first, second = (part.permute(0, 3, 1, 2).float() / 255 for part in parts)
        yield ssim(first, second), ms_ssim(first, second)


def _counts(tokenizer: Tokenizer, tokens: Tensor) -> Tensor:
    """How often each code occurs in ids (B, L·H, W): int64 (L, K)."""
    ids_LN = tokens.cpu().unflatten(1, (tokenizer.levels, -1)).transpose(0, 1).flatten(1)
    return torch.stack([torch.bincount(ids, minlength=tokenizer.num_codes) for ids in ids_LN])


def _entropy(counts_LK: Tensor) -> Tensor:
    """In bits, of each level: float64 (L,)."""
    share_LK = counts_LK.double() / counts_LK.sum(1, keepdim=True)
    nats_L: Tensor = -torch.special.xlogy(share_LK, share_LK).sum(1)
    return nats_L / math.log(2)
