"""Quality of tokenizers: reconstruction error, codebook usage and encoding speed.

Legend: B inputs, S image side, T samples of a window, M bands, F frames, K codes, L levels.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Generic, TypeAlias, TypeVar, overload

import torch
from torch import Tensor
from typing_extensions import override

from seit.tokenizers.base import AudioTokenizer, ImageTokenizer, Tokenizer
from seit.tokenizers.mel import (
    MAX_FRAMES,
    RANGE_DB,
    SAMPLE_RATES,
    MelConfig,
    MelFrontEnd,
    SpectrogramTokenizer,
)
from seit.tokenizers.similarity import MIN_SIDE, ms_ssim, ssim
from seit.tokenizers.speech.units import UnitTokenizer

_SIMILARITY_BATCH = 8
_FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Quality:
    """Reconstruction quality over ``images`` images.

    Attributes:
        images: number of images.
        psnr_db: mean over images of 10·log10(255² / MSE), in dB. Pictures of one color, which may
            be rebuilt exactly, are left out if there are others.
        codebook_usage: fraction of the K codes that occur, 0–1; mean over levels.
        perplexity: 2 to the entropy of the code frequencies, 1…K; mean over levels.
    """

    images: int
    psnr_db: float
    codebook_usage: float
    perplexity: float


@dataclass(frozen=True)
class AudioQuality:
    """Reconstruction quality over ``windows`` windows of audio.

    Attributes:
        windows: number of windows.
        psnr_db: mean over windows of 10·log10(100² / MSE), in dB. The error is that of log-mel
            levels in dB, whose range is 100, without the frames after the window. For tokenizers
            that decode to sound, the levels of both sounds are compared. Silent windows are left
            out if there are others.
        codebook_usage: fraction of the K codes that occur, 0–1; mean over levels.
        perplexity: 2 to the entropy of the code frequencies, 1…K; mean over levels.
    """

    windows: int
    psnr_db: float
    codebook_usage: float
    perplexity: float


@dataclass(frozen=True)
class UnitQuality:
    """Quality of units of a speech model's layer over ``windows`` windows of audio.

    Attributes:
        windows: number of windows.
        explained_variance: share of the variance of the layer's frames that the centers explain,
            at most 1: 1 − Σ‖frame − center‖² / Σ‖frame − mean‖².
        codebook_usage: fraction of the K codes that occur, 0–1; the code of padding is no code.
        perplexity: 2 to the entropy of the code frequencies, 1…K, without padding.
    """

    windows: int
    explained_variance: float
    codebook_usage: float
    perplexity: float


@dataclass(frozen=True)
class Measurement(Quality):
    """:class:`Quality` with further figures for a comparison of tokenizers.

    Attributes:
        ssim: mean over images, at most 1; see :mod:`seit.tokenizers.similarity`.
        ms_ssim: multi-scale SSIM, mean over images.
        entropy_bits: entropy of the code frequencies, bits per token: the cost without context.
        images_per_second: speed of encoding alone, on the tokenizer's device.
    """

    ssim: float
    ms_ssim: float
    entropy_bits: float
    images_per_second: float


def varies(inputs: Tensor) -> Tensor:
    """Return which of some inputs change: bool (B,).

    Args:
        inputs: pictures (B, H, W, C), which change if they have more than one color; or sounds
            (B, T), which change unless they are silent.
    """
    values = inputs.flatten(1, -2) if inputs.ndim > 2 else inputs[..., None]
    return (values.amax(1) > values.amin(1)).any(1)


def mean_psnr(errors: Tensor, counted: Tensor, *, peak: float) -> float:
    """Return the mean PSNR in dB.

    Args:
        errors: mean squared error (B,) of each input.
        counted: inputs bool (B,) that count, of :func:`varies`: others may be rebuilt exactly, and
            would decide the mean. All count if none of them does.
        peak: range of values.
    """
    psnr = 10 * torch.log10(peak**2 / errors.clamp(min=1e-12))
    return float((psnr[counted] if counted.any() else psnr).mean())


_Tokenizer = TypeVar("_Tokenizer", bound=Tokenizer)


class _Meter(ABC, Generic[_Tokenizer]):
    """Sums of the quality of a tokenizer, input by input."""

    batch: ClassVar[int]
    peak: ClassVar[float]

    def __init__(self, tokenizer: _Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.counts_LK = torch.zeros(tokenizer.levels, tokenizer.num_codes, dtype=torch.int64)
        self.errors: list[Tensor] = []
        self.varies: list[Tensor] = []

    @abstractmethod
    def squared_error(self, inputs: Tensor, rebuilt: Tensor) -> Tensor:
        """Return the mean squared error of each input: float64 (B,)."""

    def add(self, inputs: Tensor, tokens: Tensor, rebuilt: Tensor) -> None:
        """Count inputs (B, …), their ids (B, L·H, W) and their reconstructions."""
        self.errors.append(self.squared_error(inputs, rebuilt))
        self.varies.append(varies(inputs).cpu())
        ids_LN = tokens.cpu().unflatten(1, (len(self.counts_LK), -1)).transpose(0, 1).flatten(1)
        num_codes = self.counts_LK.shape[1]
        self.counts_LK += torch.stack([torch.bincount(ids, minlength=num_codes) for ids in ids_LN])

    def add_all(self, inputs: Tensor) -> tuple[int, float, float, float]:
        """Encode, decode and count inputs (B, …); returns the figures."""
        for batch in inputs.split(self.batch):
            tokens = self.tokenizer.encode(batch)
            self.add(batch, tokens, self.tokenizer.decode(tokens))
        return self.figures()

    def figures(self) -> tuple[int, float, float, float]:
        """Return the number of inputs, PSNR in dB, codebook usage and perplexity."""
        errors_B = torch.cat(self.errors)
        psnr = mean_psnr(errors_B, torch.cat(self.varies), peak=self.peak)
        usage = float((self.counts_LK > 0).double().mean())
        return len(errors_B), psnr, usage, float(torch.exp2(self.entropy()).mean())

    def entropy(self) -> Tensor:
        """Return the entropy of the codes of each level, in bits: float64 (L,)."""
        return _entropy(self.counts_LK)


class _ImageMeter(_Meter[Tokenizer]):
    """Meter of pixel errors."""

    batch: ClassVar[int] = 64
    peak: ClassVar[float] = 255

    @override
    def squared_error(self, inputs: Tensor, rebuilt: Tensor) -> Tensor:
        error = rebuilt.cpu().double() - inputs.cpu().double()
        return error.square().flatten(1).mean(1)


class _AudioMeter(_Meter[AudioTokenizer]):
    """Meter of errors of levels in dB."""

    batch: ClassVar[int] = 16
    peak: ClassVar[float] = RANGE_DB

    def __init__(self, tokenizer: AudioTokenizer) -> None:
        super().__init__(tokenizer)
        self.front_end = _front_end(tokenizer)
        config = self.front_end.config
        self.num_frames = math.ceil(config.window / config.hop)

    @override
    def squared_error(self, inputs: Tensor, rebuilt: Tensor) -> Tensor:
        rebuilt_BMF = rebuilt if rebuilt.ndim == 3 else self.front_end.levels(rebuilt)
        error = rebuilt_BMF - self.front_end.levels(inputs)
        return error[..., : self.num_frames].cpu().double().square().mean((1, 2))


class _UnitMeter:
    """Sums over the frames of a layer, window by window, in float64."""

    def __init__(self, tokenizer: UnitTokenizer) -> None:
        self.tokenizer = tokenizer
        self.counts_K = torch.zeros(tokenizer.num_codes - 1, dtype=torch.int64)
        self.sum_D = torch.zeros(tokenizer.codebook_dim, dtype=torch.float64)
        self.squares = self.error = 0.0

    def add(self, wave: Tensor) -> None:
        """Count the frames of a window (T,)."""
        features_fD = self.tokenizer.features(wave)
        ids_f = self.tokenizer.ids(features_fD)[: len(features_fD)]
        error_fD = features_fD - self.tokenizer.codebook[ids_f]
        self.error += float(error_fD.double().square().sum())
        self.squares += float(features_fD.double().square().sum())
        self.sum_D += features_fD.double().sum(0).cpu()
        self.counts_K += torch.bincount(ids_f.cpu(), minlength=len(self.counts_K))

    def quality(self, windows: int) -> UnitQuality:
        """Return the figures of ``windows`` windows; of silence alone, 1 without any code."""
        frames = int(self.counts_K.sum())
        spread = self.squares - float(self.sum_D.square().sum()) / max(1, frames)
        return UnitQuality(
            windows=windows,
            explained_variance=1 - self.error / spread if spread > 0 else 1.0,
            codebook_usage=float((self.counts_K > 0).double().mean()),
            perplexity=2 ** float(_entropy(self.counts_K[None])),
        )


def _entropy(counts_LK: Tensor) -> Tensor:
    """Return the entropy of the codes of each level, in bits: float64 (L,)."""
    share_LK = counts_LK.double() / counts_LK.sum(1, keepdim=True).clamp(min=1)
    nats_L: Tensor = -torch.special.xlogy(share_LK, share_LK).sum(1)
    return nats_L / math.log(2)


AnyQuality: TypeAlias = Quality | AudioQuality | UnitQuality
"""Quality of a tokenizer of any kind."""


@overload
def measure_quality(tokenizer: SpectrogramTokenizer, inputs: Tensor) -> AudioQuality: ...
@overload
def measure_quality(tokenizer: ImageTokenizer, inputs: Tensor) -> Quality: ...
@overload
def measure_quality(tokenizer: Tokenizer, inputs: Tensor) -> AnyQuality: ...
def measure_quality(tokenizer: Tokenizer, inputs: Tensor) -> AnyQuality:
    """Measure a tokenizer on images uint8 (B, S, S, 3) or waveforms float32 (B, T), B ≥ 1.

    They are encoded and decoded; units, which cannot be decoded, are compared with the frames of
    their layer.
    """
    if isinstance(tokenizer, UnitTokenizer):
        units = _UnitMeter(tokenizer)
        for wave in inputs:
            units.add(wave)
        return units.quality(len(inputs))
    if isinstance(tokenizer, AudioTokenizer):
        return AudioQuality(*_AudioMeter(tokenizer).add_all(inputs))
    return Quality(*_ImageMeter(tokenizer).add_all(inputs))


def measure(tokenizer: Tokenizer, batches: Iterable[Tensor]) -> Measurement:
    """Encode and decode batches of images uint8 (B, S, S, 3), at least one image, S ≥ 11.

    The first batch is encoded twice: once to warm up, once for the timing.
    """
    meter = _ImageMeter(tokenizer)
    structure: list[tuple[Tensor, Tensor]] = []
    seconds = 0.0
    for batch in batches:
        assert batch.shape[1] >= MIN_SIDE, "smaller than the windows of SSIM"
        if not structure:
            tokenizer.encode(batch)
        started = time.perf_counter()
        tokens = tokenizer.encode(batch).cpu()
        seconds += time.perf_counter() - started
        rebuilt = tokenizer.decode(tokens).cpu()
        meter.add(batch, tokens, rebuilt)
        structure += _similarities(batch.cpu(), rebuilt)
    assert structure, "no images"
    quality = Quality(*meter.figures())
    plain, scales = (torch.cat(parts) for parts in zip(*structure, strict=True))
    return Measurement(
        **asdict(quality),
        ssim=float(plain.mean()),
        ms_ssim=float(scales.mean()),
        entropy_bits=float(meter.entropy().mean()),
        images_per_second=quality.images / seconds,
    )


def _similarities(images: Tensor, rebuilt: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield SSIM and MS-SSIM of a few images at a time."""
    for parts in zip(
        images.split(_SIMILARITY_BATCH), rebuilt.split(_SIMILARITY_BATCH), strict=True
    ):
        first, second = (part.permute(0, 3, 1, 2).float() / 255 for part in parts)
        yield ssim(first, second), ms_ssim(first, second)


def _front_end(tokenizer: AudioTokenizer) -> MelFrontEnd:
    """Return the tokenizer's front end, or a default one if it has none."""
    if isinstance(tokenizer, SpectrogramTokenizer):
        return tokenizer.front_end
    low, high = SAMPLE_RATES
    rate, window = min(max(tokenizer.sample_rate, low), high), tokenizer.window
    hop = max(1, rate // _FRAMES_PER_SECOND, -(-window // MAX_FRAMES))
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
