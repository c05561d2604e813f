"""Real narrated speech with simulated electrodes, from the wheel of naplib.

naplib (MIT) simulates ten electrodes by spectro-temporal filters of an auditory spectrogram, plus
noise. The recordings are of a commercial audiobook: they are measured where they are fetched, and
never shipped.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from packages import fetch_wheel

from seit.analysis.brain.responses import Array

NAPLIB = "naplib==2.6.0"
_SHA256 = "c61deebe618e94052714352786fd5bbc58d13becbfcc7a19eb40aaf00c7a308b"
_MEMBER = "naplib/io/sample_data/demo_data.mat"
_RATE, _STEP, _TOGETHER = 100, 2, 2
TR = _STEP / _RATE
"""Seconds between samples of responses, averaged in pairs."""


def unpack(work: Path) -> tuple[Path, Path, dict[str, Array]]:
    """Write runs of two trials, and return the folders of sounds and responses, and spectrograms.

    A spectrogram is (samples, 128), at the rate of the responses, by the name of a run.
    """
    import h5py

    wheel = fetch_wheel(work, NAPLIB, sha256=_SHA256)
    sounds, responses = work / "narration", work / "narration-responses"
    sounds.mkdir(exist_ok=True)
    responses.mkdir(exist_ok=True)
    spectrograms = {}
    with zipfile.ZipFile(wheel) as archive:
        table = h5py.File(io.BytesIO(archive.read(_MEMBER)))

    def read(name: str, trial: int) -> np.ndarray[Any, np.dtype[Any]]:
        values: np.ndarray[Any, np.dtype[Any]] = table[table["out"][name][trial, 0]][()]
        return values

    for first in range(0, len(table["out/sound"]), _TOGETHER):
        trials, name = range(first, first + _TOGETHER), f"{first // _TOGETHER:02}"
        rate = int(read("soundf", first).item())
        kept = [_paired(read("resp", trial)) for trial in trials]
        waves = [
            _fitted(read("sound", trial).ravel(), round(len(own) * TR * rate))
            for trial, own in zip(trials, kept, strict=True)
        ]
        wave = np.concatenate(waves)
        soundfile.write(sounds / f"{name}.wav", wave / np.abs(wave).max() * 0.9, rate)
        np.save(responses / f"{name}.npy", np.concatenate(kept))
        spectrograms[name] = np.concatenate([_paired(read("aud", trial)) for trial in trials])
    return sounds, responses, spectrograms


def _fitted(wave: np.ndarray[Any, np.dtype[Any]], length: int) -> Array:
    """Return a waveform that is cut, or padded with silence, to some samples."""
    cut: Array = np.pad(wave[:length], (0, max(0, length - len(wave))))
    return cut


def _paired(values: np.ndarray[Any, np.dtype[Any]]) -> Array:
    """Return the means of neighbors in time."""
    count = len(values) // _STEP
    means: Array = values[: count * _STEP].reshape(count, _STEP, -1).mean(1)
    return means
