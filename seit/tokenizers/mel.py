"""Front end of audio tokenizers: waveforms → standardized log-mel planes, and back.

A spectrogram is that of librosa with its defaults: a periodic Hann window, centered frames, power,
triangular filters of unit area on Slaney's mel scale (M. Slaney, "Auditory Toolbox", 1998), and
10·log10, here with a floor of −60 dB. Rows are frequencies, lowest band first; columns are time.
A plane is a spectrogram with each band standardized to mean 0 and deviation 1 over a corpus.

Legend: B windows, T samples of a window, M bands, F frames, N frames of all windows.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from seit.errors import DamagedError
from seit.tokenizers.base import AudioTokenizer

FLOOR_DB = -60.0
"""Level of silence, the lowest of all; a sine of full scale reaches 30 to 40."""
RANGE_DB = 100.0
"""Range from the floor to a level that no recording exceeds; the peak in PSNR."""
_COLOURS = ((0, 0, 0), (60, 15, 110), (185, 55, 85), (250, 150, 30), (255, 255, 255))
_MIN_DEVIATION_DB = 1.0
"""Least deviation; keeps nearly constant bands, as above an old recording's limit, from scaling."""
_GPU_WINDOWS = 64
_MAX_SAMPLES = 1 << 24
SAMPLE_RATES = (1000, 1 << 20)
"""Least and largest rate of samples."""
MAX_FRAMES = 1 << 14
"""Most frames of a window."""
_MAX_FFT = 1 << 15


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Shape of a spectrogram.

    Attributes:
        sample_rate: samples per second.
        window: T, samples of a window.
        hop: samples between frames.
        taper: samples of the Hann window.
        fft: samples of a frame, ``taper`` padded with zeros on both sides.
        bands: M, from 0 Hz to half the sample rate.
        frames: F, at least as many as the window has; the rest is silence.
        patch: bands and frames per token.
    """

    sample_rate: int = 16_000
    window: int
    hop: int
    taper: int
    fft: int = 1024
    bands: int = 128
    frames: int
    patch: tuple[int, int]

    def __post_init__(self) -> None:
        limits = {
            "sample_rate": SAMPLE_RATES,
            "window": (1, _MAX_SAMPLES),
            "hop": (1, _MAX_SAMPLES),
            "fft": (16, _MAX_FFT),
            "taper": (2, self.fft),
            "bands": (1, 1024),
            "frames": (-(-self.window // max(self.hop, 1)), MAX_FRAMES),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; expected {low} to {high}")
        if self.fft % 2:
            raise ValueError(f"fft is {self.fft}; expected an even number")
        height, width = self.patch
        if not all(type(side) is int and side >= 1 for side in self.patch) or (
            self.bands % height or self.frames % width
        ):
            raise ValueError(f"{self.bands} × {self.frames} do not fall into patches {self.patch}")
        if self.hop * self.frames > _MAX_SAMPLES:
            raise ValueError(f"{self.frames} frames of {self.hop} samples are too many")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (H, W): rows of frequency, columns of time."""
        return self.bands // self.patch[0], self.frames // self.patch[1]

    @property
    def patch_values(self) -> int:
        """D, the number of values of a patch."""
        return self.patch[0] * self.patch[1]

    def to_json(self) -> dict[str, Any]:
        """Return the values that :meth:`from_json` reads."""
        return {**asdict(self), "patch": list(self.patch)}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Read the values of :meth:`to_json`.

        Raises:
            ValueError, TypeError, KeyError: they are invalid.
        """
        height, width = values["patch"]
        return cls(**{**values, "patch": (height, width)})


class MelFrontEnd:
    """Waveforms float32 (B, T) ↔ planes float32 (B, 1, M, F); see the module's docstring.

    A CPU computes windows one by one, so that results do not depend on the batch.
    """

    def __init__(self, config: MelConfig, *, mean: Tensor, deviation: Tensor) -> None:
        """Initialize from ``mean`` and ``deviation``, float32 (M,), in dB."""
        self.config = config
        self._mean_M = mean.contiguous()
        self._deviation_M = deviation.contiguous()
        device = mean.device
        self._taper = _centred_hann(config).to(device)
        filters = mel_filters(config.sample_rate, fft=config.fft, bands=config.bands)
        self._filters = torch.from_numpy(filters.astype(np.float32)).to(device)

    @classmethod
    def fit(cls, config: MelConfig, waves: Tensor) -> Self:
        """Fit the mean and deviation of each band to waveforms float32 (B, T), B ≥ 1."""
        bare = cls.unfitted(config)
        num_frames = math.ceil(config.window / config.hop)
        levels_MN = bare.levels(waves)[..., :num_frames].permute(1, 0, 2).flatten(1).double()
        return cls(
            config,
            mean=levels_MN.mean(1).float(),
            deviation=levels_MN.std(1, correction=0).clamp(min=_MIN_DEVIATION_DB).float(),
        )

    @classmethod
    def unfitted(cls, config: MelConfig) -> Self:
        """Return a front end without standardization: planes are levels in dB."""
        return cls(config, mean=torch.zeros(config.bands), deviation=torch.ones(config.bands))

    @torch.no_grad()
    def levels(self, waves: Tensor) -> Tensor:
        """Compute spectrograms float32 (B, M, F) in dB, at least the floor."""
        group = _GPU_WINDOWS if self._mean_M.is_cuda else 1
        waves = waves.to(self._mean_M.device)
        return torch.cat([self._levels(part) for part in waves.split(group)])

    def _levels(self, waves: Tensor) -> Tensor:
        config = self.config
        half = config.fft // 2
        behind = config.hop * config.frames - config.window + half
        frames = functional.pad(waves, (half, behind)).unfold(-1, config.fft, config.hop)
        spectra = torch.fft.rfft(frames[..., : config.frames, :] * self._taper)
        power = spectra.real.square() + spectra.imag.square()
        bands: Tensor = (power @ self._filters.T).clamp_(min=10 ** (FLOOR_DB / 10))
        return bands.log10_().mul_(10).mT

    def planes(self, waves: Tensor) -> Tensor:
        """Compute standardized spectrograms float32 (B, 1, M, F)."""
        levels = self.levels(waves)
        return ((levels - self._mean_M[:, None]) / self._deviation_M[:, None])[:, None]

    def to_levels(self, planes: Tensor) -> Tensor:
        """Convert planes (B, 1, M, F) to spectrograms float32 (B, M, F) in dB."""
        return planes[:, 0] * self._deviation_M[:, None] + self._mean_M[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """Return the fitted tensors by name."""
        return {"band_mean": self._mean_M, "band_deviation": self._deviation_M}

    def settings(self) -> dict[str, Any]:
        """Return the configuration as JSON-serializable values."""
        return self.config.to_json()

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], settings: Any) -> Self:
        """Build the front end from :meth:`tensors` and :meth:`settings`.

        Raises:
            DamagedError: they do not fit together.
        """
        try:
            config = MelConfig.from_json(settings)
            mean, deviation = tensors["band_mean"], tensors["band_deviation"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DamagedError(f"the settings of a mel front end are invalid ({error})") from error
        for tensor in (mean, deviation):
            if tensor.shape != (config.bands,) or tensor.dtype != torch.float32:
                raise DamagedError(
                    f"a mel front end of {config.bands} bands holds {tensor.dtype} "
                    f"{tuple(tensor.shape)}"
                )
        if not (mean.isfinite().all() and deviation.isfinite().all() and (deviation > 0).all()):
            raise DamagedError("the bands of a mel front end have no finite mean and deviation")
        return cls(config, mean=mean, deviation=deviation)

    def to(self, device: str | torch.device) -> Self:
        """Return a copy on ``device``."""
        return type(self)(
            self.config, mean=self._mean_M.to(device), deviation=self._deviation_M.to(device)
        )


class SpectrogramTokenizer(AudioTokenizer):
    """Tokenizer of spectrogram patches; row 0 of a grid is the lowest frequency.

    Attributes:
        front_end: converter of waveforms to planes.
    """

    front_end: MelFrontEnd

    def take_front_end(self, front_end: MelFrontEnd) -> None:
        """Set the front end, and the inputs from it."""
        self.front_end = front_end
        self.sample_rate = front_end.config.sample_rate
        self.window = front_end.config.window


def mel_pictures(levels: Tensor) -> npt.NDArray[np.uint8]:
    """Draw spectrograms (B, M, F) in dB as uint8 (B, M, F, 3), low frequencies at the bottom.

    Colors run from black (the floor) over violet and orange to white (100 dB above it).
    """
    shares = ((levels.cpu().double() - FLOOR_DB) / RANGE_DB).clamp(0, 1).flip(1).numpy()
    places = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(shares, places, channel) for channel in zip(*_COLOURS, strict=True)]
    pictures: npt.NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return pictures


def hz_to_mel(frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert Hz to Slaney's mel: linear up to 1 kHz (15 mel), then 27 mel per factor of 6.4."""
    above = 15 + 27 * np.log(np.maximum(frequency, 1000) / 1000) / math.log(6.4)
    return np.where(frequency < 1000, frequency * (15 / 1000), above)


def mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert Slaney's mel to Hz."""
    above = 1000 * np.exp((mel - 15) * (math.log(6.4) / 27))
    return np.where(mel < 15, mel * (1000 / 15), above)


def mel_filters(sample_rate: int, *, fft: int, bands: int) -> npt.NDArray[np.float64]:
    """Return triangular filters (M, fft / 2 + 1) of unit area in Hz, evenly spaced in mel."""
    edges = mel_to_hz(np.linspace(0, hz_to_mel(np.array(sample_rate / 2)), bands + 2))
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(fft // 2 + 1) * (sample_rate / fft)
    rising = (frequencies - low) / (center - low)
    falling = (high - frequencies) / (high - center)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


def _centred_hann(config: MelConfig) -> Tensor:
    """Return a periodic Hann window in the middle of ``fft`` samples, float32."""
    before = (config.fft - config.taper) // 2
    phase = 2 * math.pi * torch.arange(config.taper, dtype=torch.float64) / config.taper
    taper = (1 - phase.cos()) / 2
    return functional.pad(taper, (before, config.fft - config.taper - before)).float()
