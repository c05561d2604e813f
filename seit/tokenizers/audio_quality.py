"""What an audio tokenizer keeps: PSNR of its spectrograms and how evenly its codes are used.

Shape letters: B windows, T samples of a window, M bands, F frames, K codes, L levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from seit.tokenizers.base import AudioTokenizer
from seit.tokenizers.fitted.dmel import DMelTokenizer
from seit.tokenizers.fitted.mel_vq import MelTokenizer
from seit.tokenizers.learned.mel_conv import MelConvTokenizer
from seit.tokenizers.mel import RANGE_DB, MelConfig, MelFrontEnd

_BATCH = 16
_FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class AudioQuality:
    """Quality over ``windows`` windows of audio.

    Attributes:
        windows: how many were looked at.
        psnr_db: mean over windows of 10·log10(100² / MSE), in dB, the error being that of
            log-mel levels in dB, whose range is 100. Frames behind the window are left out. Of
            tokenizers that give sound back, the levels of both sounds are compared.
        codebook_usage: fraction of the codes of all levels that occur, 0–1.
        perplexity: 2 to the entropy of the code frequencies, 1…K; the mean over levels.
    """

    windows: int
    psnr_db: float
    codebook_usage: float
    perplexity: float


def measure_audio_quality(tokenizer: AudioTokenizer, waves: Tensor) -> AudioQuality:
    """Encode and decode waveforms float32 (B, T), B ≥ 1."""
    front_end = _front_end(tokenizer)
    num_frames = math.ceil(front_end.config.window / front_end.config.hop)
    levels, num_codes = tokenizer.levels, tokenizer.num_codes
    counts_LK = torch.zeros(levels, num_codes, dtype=torch.int64)
    psnr: list[Tensor] = []
    for batch in waves.split(_BATCH):
        tokens = tokenizer.encode(batch)
        kept = tokenizer.decode(tokens)
        kept_BMF = kept if kept.ndim == 3 else front_end.levels(kept)
        error = kept_BMF - front_end.levels(batch)
        mse_B = error[..., :num_frames].cpu().double().square().mean((1, 2)).clamp(min=1e-12)
        psnr.append(10 * torch.log10(RANGE_DB**2 / mse_B))
        ids_BLN = tokens.cpu().unflatten(1, (levels, -1)).flatten(2)
        for level in range(levels):
            counts_LK[level] += torch.bincount(ids_BLN[:, level].flatten(), minlength=num_codes)
    share_LK = counts_LK.double() / counts_LK.sum(1, keepdim=True)
    bits_L = -torch.special.xlogy(share_LK, share_LK).sum(1) / math.log(2)
    return AudioQuality(
        windows=len(waves),
        psnr_db=float(torch.cat(psnr).mean()),
        codebook_usage=float((counts_LK > 0).double().mean()),
        perplexity=float(torch.exp2(bits_L).mean()),
    )


def _front_end(tokenizer: AudioTokenizer) -> MelFrontEnd:
    """The tokenizer's own, or a usual one where it has none."""
    if isinstance(tokenizer, MelTokenizer | MelConvTokenizer | DMelTokenizer):
        return tokenizer.front_end
    rate, window = tokenizer.sample_rate, tokenizer.window
    hop = max(1, rate // _FRAMES_PER_SECOND)
    fft = 1024 if rate <= 24_000 else 2048
    config = MelConfig(
        sample_rate=rate,
        window=window,
        hop=hop,
        taper=fft,
        fft=fft,
        frames=math.ceil(window / hop),
        patch=(1, 1),
    )
    return MelFrontEnd.unfitted(config).to(tokenizer.codebook.device)
