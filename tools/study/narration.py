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
_RATE, _STEP = 100, 2
TR = _STEP / _RATE
"""Seconds between samples of responses, averaged in pairs."""


def unpack(work: Path) -> tuple[Path, Path, dict[str, Array]]:
    """Write the trials, and return the folders of sounds and responses, and spectrograms by trial.

    A spectrogram is (samples, 128), at the rate of the responses.
    """
    import h5py

    wheel = fetch_wheel(work, NAPLIB, sha256=_SHA256)
    sounds, responses = work / "narration", work / "narration-responses"
    sounds.mkdir(exist_ok=True)
    responses.mkdir(exist_ok=True)
    spectrograms = {}
    with zipfile.ZipFile(wheel) as archive:
        table = h5py.File(io.BytesIO(archive.read(_MEMBER)))
    for trial in range(len(table["out/sound"])):

        def read(name: str, trial: int = trial) -> np.ndarray[Any, np.dtype[Any]]:
            values: np.ndarray[Any, np.dtype[Any]] = table[table["out"][name][trial, 0]][()]
            return values

        name = f"{trial:02}"
        wave, rate = read("sound").ravel(), int(read("soundf").item())
        soundfile.write(sounds / f"{name}.wav", wave / np.abs(wave).max() * 0.9, rate)
        np.save(responses / f"{name}.npy", _paired(read("resp")))
        spectrograms[name] = _paired(read("aud"))
    return sounds, responses, spectrograms


def _paired(values: np.ndarray[Any, np.dtype[Any]]) -> Array:
    """Return the means of neighbors in time."""
    count = len(values) // _STEP
    means: Array = values[: count * _STEP].reshape(count, _STEP, -1).mean(1)
    return means
