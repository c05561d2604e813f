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
    step = tr / OVERSAMPLING
    length = num_volumes * OVERSAMPLING
    binned = binned_frames(frames, rate=rate, step=step, num_steps=length, onset=onset)
    kernel = glover(np.arange(0, _SECONDS, step)) * step
    size = 1 << (length + len(kernel) - 1).bit_length()
    spectrum = np.fft.rfft(binned, size, axis=0) * np.fft.rfft(kernel, size)[:, None]
    response: Array = np.fft.irfft(spectrum, size, axis=0)[:length:OVERSAMPLING]
    return response


def binned_frames(
    frames: npt.NDArray[np.floating],
    *,
    rate: float,
    step: float,
    num_steps: int,
    onset: float = 0.0,
) -> Array:
    """Return the mean (num_steps, D) of the frames that start in each step; 0 without frames.

    A step shorter than a frame takes the frame that it lies in.

    Args:
        frames: (T, D).
        rate: frames per second.
        step: seconds of a step.
        num_steps: number of steps.
        onset: seconds from the first step to the start of the stimulus.
    """
    frames = np.asarray(frames, dtype=np.float64)
    if step * rate < 1:
        times = (np.arange(num_steps) + 0.5) * step - onset
        index = np.floor(times * rate).astype(np.int64)
        is_inside = (index >= 0) & (index < len(frames))
        held: Array = np.zeros((num_steps, frames.shape[1]))
        held[is_inside] = frames[index[is_inside]]
        return held
    place = np.floor((np.arange(len(frames)) / rate + onset) / step + 1e-9).astype(np.int64)
    is_inside = (place >= 0) & (place < num_steps)
    counts = np.bincount(place[is_inside], minlength=num_steps)
    sums: Array = np.zeros((num_steps, frames.shape[1]))
    np.add.at(sums, place[is_inside], frames[is_inside])
    return sums / np.maximum(counts, 1)[:, None]


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
