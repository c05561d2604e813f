"""Responses of the blood flow to neural events, and delays of faster recordings.

Legend: T frames of a run, V volumes (or samples) of its responses, D features, L delays.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
OVERSAMPLING = 16
"""Steps per volume at which features are convolved."""
_SECONDS = 32.0
"""Length of the response that is used."""
_PEAK, _UNDERSHOOT, _DISPERSION, _RATIO = 6.0, 12.0, 0.9, 0.35


def glover(times: npt.NDArray[np.floating]) -> Array:
    """Return Glover's canonical response of the blood flow (NeuroImage 9, 1999) at some times.

    The difference of two gamma densities, with peaks near 5 and 11 seconds.

    Args:
        times: seconds after an event.
    """
    rise = _gamma_density(times, _PEAK / _DISPERSION, _DISPERSION)
    fall = _gamma_density(times, _UNDERSHOOT / _DISPERSION, _DISPERSION)
    response: Array = rise - _RATIO * fall
    return response


def _gamma_density(times: npt.NDArray[np.floating], shape: float, scale: float) -> Array:
    after = np.clip(np.asarray(times, dtype=np.float64) / scale, 0, None)
    logarithm = np.full(after.shape, -np.inf)
    np.log(after, out=logarithm, where=after > 0)
    density: Array = np.exp((shape - 1) * logarithm - after - math.lgamma(shape)) / scale
    return density


def convolved(
    frames: npt.NDArray[np.floating],
    *,
    rate: float,
    tr: float,
    num_volumes: int,
    onset: float = 0.0,
) -> Array:
    """Return the features (V, D) that blood flow would show, sampled at the volumes.

    Frames are averaged in steps of tr / 16, convolved with `glover`, and sampled at the start of
    each volume. Nothing wraps around the ends of a run.

    Args:
        frames: (T, D).
        rate: frames per second.
        tr: seconds between volumes.
        num_volumes: V.
        onset: seconds from the first volume to the start of the stimulus; may be negative.
    """
    bins = Bins(num_volumes * OVERSAMPLING, step=tr / OVERSAMPLING)
    bins.add(frames, rate=rate, onset=onset)
    return followed(bins.means(), tr=tr)


def followed(steps: Array, *, tr: float) -> Array:
    """Return the response (V, D) of blood flow to features (16 · V, D) in steps of tr / 16.

    Args:
        steps: features of all steps of a run.
        tr: seconds between volumes.
    """
    step, length = tr / OVERSAMPLING, len(steps)
    kernel = glover(np.arange(0, _SECONDS, step)) * step
    size = 1 << (length + len(kernel) - 1).bit_length()
    spectrum = np.fft.rfft(steps, size, axis=0) * np.fft.rfft(kernel, size)[:, None]
    response: Array = np.fft.irfft(spectrum, size, axis=0)[:length:OVERSAMPLING]
    return response


class Bins:
    """Mean of the frames that start in each step of a run, whose stretches are added one by one.

    A step shorter than a frame takes the frame that it lies in.

    Args:
        num_steps: number of steps.
        step: seconds of a step.
    """

    def __init__(self, num_steps: int, *, step: float) -> None:
        self._step = step
        self._counts = np.zeros(num_steps, dtype=np.int64)
        self._sums: Array = np.zeros((num_steps, 0))

    def add(self, frames: npt.NDArray[np.floating], *, rate: float, onset: float = 0.0) -> None:
        """Add the frames (T, D) of a stretch.

        Args:
            frames: (T, D), the same D for all stretches.
            rate: frames per second.
            onset: seconds from the first step to the start of the stretch; may be negative.
        """
        frames, num_steps = np.asarray(frames, dtype=np.float64), len(self._counts)
        if not self._sums.size:
            self._sums = np.zeros((num_steps, frames.shape[1]))
        if self._step * rate < 1:
            times = (np.arange(num_steps) + 0.5) * self._step - onset
            index = np.floor(times * rate).astype(np.int64)
            is_inside = (index >= 0) & (index < len(frames))
            self._counts += is_inside
            self._sums[is_inside] += frames[index[is_inside]]
            return
        starts = np.arange(len(frames)) / rate + onset
        place = np.floor(starts / self._step + 1e-9).astype(np.int64)
        is_inside = (place >= 0) & (place < num_steps)
        self._counts += np.bincount(place[is_inside], minlength=num_steps)
        np.add.at(self._sums, place[is_inside], frames[is_inside])

    def means(self) -> Array:
        """Return the mean (num_steps, D) of each step, 0 without frames."""
        return self._sums / np.maximum(self._counts, 1)[:, None]


def delayed(features: npt.NDArray[np.floating], delays: Sequence[int]) -> Array:
    """Return features (V, D) beside themselves with delays, (V, L · D); zeros before the start.

    Args:
        features: (V, D) of one run.
        delays: delays in samples, 0 or more: FIR models of blood flow, or time lags.
    """
    length, dim = features.shape
    stacked: Array = np.zeros((length, len(delays) * dim))
    for place, delay in enumerate(delays):
        if delay < length:
            columns = slice(place * dim, (place + 1) * dim)
            stacked[delay:, columns] = features[: length - delay]
    return stacked
