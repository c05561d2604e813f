"""Sounds of tokens: the codec's own waves, or waves found for a spectrogram by Griffin–Lim.

Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984), with the
momentum of Perraudin et al., "A fast Griffin-Lim algorithm" (2013).

Legend: T samples, M mel bands, F frames, S frequencies of the Fourier transform.
"""

import io
import wave

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import UsageError
from seit.tokenizers import AudioTokenizer, MelConfig, SpectrogramTokenizer, mel_filters

_ITERATIONS = 40
_MOMENTUM = 0.99
_FITS = 60
_PEAK = 0.89


def decode_wave(
    tokenizer: AudioTokenizer, tokens: npt.NDArray[np.unsignedinteger]
) -> npt.NDArray[np.float32]:
    """Decode ids (H, W) of one window to a wave float32 (T,), full scale at ±1.

    Raises:
        UsageError: the tokenizer cannot decode.
    """
    decoded = tokenizer.decode(tokens[None])[0].float().cpu()
    if decoded.ndim == 1:
        return decoded.numpy()
    if not isinstance(tokenizer, SpectrogramTokenizer):
        raise UsageError(f"{tokenizer.name} decodes to no spectrogram that can be played")
    return griffin_lim(decoded, tokenizer.front_end.config).numpy()


@torch.no_grad()
def griffin_lim(levels: Tensor, config: MelConfig) -> Tensor:
    """Find a wave float32 (T,) for a mel spectrogram (M, F) in dB, of the same random start.

    The power of each frequency is fitted to the bands first, as no band is its inverse.
    """
    filters = torch.from_numpy(
        mel_filters(config.sample_rate, fft=config.fft, bands=config.bands)
    ).float()
    power = 10 ** (levels.float() / 10)
    magnitude = _fit_power(filters, power).sqrt()
    window = torch.hann_window(config.taper)
    length = config.hop * (magnitude.shape[1] - 1)

    def heard_as(spectrum: Tensor) -> Tensor:
        return torch.istft(
            spectrum, config.fft, config.hop, config.taper, window=window, length=length
        )

    generator = torch.Generator().manual_seed(0)
    phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator)
    angles = torch.polar(torch.ones_like(phase), phase)
    before = torch.zeros_like(angles)
    for _ in range(_ITERATIONS):
        rebuilt = torch.stft(
            heard_as(magnitude * angles),
            config.fft,
            config.hop,
            config.taper,
            window=window,
            pad_mode="constant",
            return_complex=True,
        )
        angles = rebuilt - before * (_MOMENTUM / (1 + _MOMENTUM))
        angles = angles / (angles.abs() + 1e-12)
        before = rebuilt
    return heard_as(magnitude * angles)[: config.window]


def _fit_power(filters: Tensor, power: Tensor) -> Tensor:
    """Return non-negative powers (S, F) that give (M, F) through filters (M, S).

    Multiplicative updates of Lee and Seung, "Algorithms for non-negative matrix factorization"
    (2000), for the least squares of one factor.
    """
    wanted = filters.T @ power
    gram = filters.T @ filters
    found = wanted / (gram.sum(1, keepdim=True) + 1e-12)
    for _ in range(_FITS):
        found = found * (wanted / (gram @ found + 1e-20))
    return found


def wav_file(samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    """Return a WAV file, 16 bits mono, of a wave (T,); a louder one than full scale is scaled."""
    peak = float(np.abs(samples).max(initial=0))
    if peak > 1:
        samples = samples * (_PEAK / peak)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
