"""Log-mel spectrograms as a baseline: a subject without a network."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from typing_extensions import override

from seit.analysis.subjects.base import Clip, Place, Subject
from seit.fingerprints import hash_of
from seit.stream import Sound
from seit.tokenizers import SAMPLE_RATE, mel_filters

BANDS, FFT, HOP = 80, 400, 160
LAYER = "mel"


class MelSubject(Subject):
    """Log-mel spectrograms of 80 bands at 100 Hz, in dB.

    Args:
        sounds: clips, decoded.
        classes: class names of their labels.
    """

    name = "log-mel"
    layers = (LAYER,)

    def __init__(self, sounds: Sequence[Sound], *, classes: tuple[str, ...]) -> None:
        self.sounds, self.classes = sounds, classes
        filters = mel_filters(SAMPLE_RATE, fft=FFT, bands=BANDS)
        self._filters = torch.from_numpy(filters).float()
        self._window = torch.hann_window(FFT)

    @property
    @override
    def places(self) -> Sequence[Place]:
        return [
            Place(sound.key, sound.file, sound.label, sound.start, sound.seconds)
            for sound in self.sounds
        ]

    @override
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        for row in range(len(self.sounds)) if rows is None else rows:
            wave = torch.from_numpy(self.sounds[row].waveform)
            spectrum = torch.stft(wave, FFT, HOP, window=self._window, return_complex=True)
            power = self._filters @ spectrum[:, :-1].abs().square()
            levels = (10 * power.clamp(min=1e-10).log10()).T.contiguous().numpy()
            yield Clip(
                row=row,
                values={LAYER: levels.astype(np.float32)},
                seconds=self.sounds[row].seconds,
            )

    @override
    def fingerprint(self) -> str:
        return hash_of(sound.digest for sound in self.sounds)

    @override
    def random_twin(self, seed: int) -> Subject:
        raise NotImplementedError("a spectrogram has no weights")
