"""Windows of the clips of a corpus, as a function of (seed, step).

Legend: B crops, M bands, F frames of a window, N samples of a clip, T of a window.
"""

from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import SeitError
from seit.ingest import (
    AudioReader,
    Instance,
    decode_audio,
    read_bytes,
    spread_evenly,
    spread_values,
)
from seit.tokenizer_training.batches import Batches
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import PLANE_RANGE, MelConfig, MelFrontEnd

_GAIN_DB = 6.0
_KEPT_BYTES = 256 << 20


class Windows(Batches):
    """Batches of parts of spectrograms: all bands, ``crop`` frames.

    Each window starts at a random sample, with a random gain of up to ±6 dB; its spectrogram gives
    several crops at random frames. Decoded clips are cached, up to 256 MB.
    """

    noun = "clips"

    def __init__(
        self, instances: Sequence[Instance], config: TokenizerConfig, front_end: MelFrontEnd
    ) -> None:
        super().__init__(instances, config)
        self._front_end = front_end
        self._kept: dict[int, npt.NDArray[np.float32]] = {}
        self._room = _KEPT_BYTES
        self._lock = Lock()

    @override
    def _crops(self, random: np.random.Generator) -> tuple[Instance, list[Tensor]]:
        config = self._config
        instance, clip_N = self._draw(random, self._samples)
        start = int(random.integers(0, max(0, len(clip_N) - self._mel.window) + 1))
        gain = np.float32(10 ** (random.uniform(-_GAIN_DB, _GAIN_DB) / 20))
        wave_T = np.zeros(self._mel.window, dtype=np.float32)
        part_N = clip_N[start : start + len(wave_T)]
        wave_T[: len(part_N)] = gain * part_N
        plane = self._front_end.planes(torch.from_numpy(wave_T)[None])[0] / PLANE_RANGE
        lefts = random.integers(0, self._mel.frames - config.crop + 1, config.crops_per_image)
        return instance, [plane[..., left : left + config.crop] for left in lefts.tolist()]

    @property
    def _mel(self) -> MelConfig:
        return self._front_end.config

    def _samples(self, number: int) -> npt.NDArray[np.float32]:
        """Return a clip float32 (N,)."""
        kept = self._kept.get(number)
        if kept is not None:
            return kept
        windows = decode_audio(
            read_bytes(self._instances[number]),
            sample_rate=self._mel.sample_rate,
            window=self._mel.window,
        )
        clip_N = np.concatenate([window.values[: window.num_valid] for window in windows])
        with self._lock:
            if number not in self._kept and clip_N.nbytes <= self._room:
                self._kept[number] = clip_N
                self._room -= clip_N.nbytes
        return clip_N


def sample_windows(instances: Sequence[Instance], mel: MelConfig, *, count: int) -> Tensor:
    """Decode about ``count`` evenly spaced windows: float32 (n, T), n ≥ 1.

    Raises:
        SeitError: no clip is readable.
    """
    chosen = spread_evenly(instances, count)
    with AudioReader(sample_rate=mel.sample_rate, window=mel.window) as reader:
        values = list(spread_values(reader, chosen, count))
    if not values:
        raise SeitError(
            f"none of {len(chosen)} files, {chosen[0].key} among them, can be read as audio; "
            "check SRC"
        )
    return torch.from_numpy(np.stack(values))
