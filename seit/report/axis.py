"""Axes: the range a chart shows and the round values marked along it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.numbers import minus, percent

_SLACK = 1e-6  # steps; a tick this far beyond the end still belongs to the axis


@dataclass(frozen=True)
class Axis:
    """A range of values, ``low`` < ``high``, and the ``step`` between its ticks."""

    low: float
    high: float
    step: float

    @classmethod
    def around(
        cls, values: npt.NDArray[np.float64], *, num_steps: int, rounded: bool = False
    ) -> "Axis":
        """Return the axis over finite ``values`` (L,), L ≥ 1, with about ``num_steps`` intervals.

        ``rounded`` moves both ends outwards to a tick. A single value gets room on both sides.
        Whole values get whole ticks: there is no epoch 2.5.
        """
        low, high = float(values.min()), float(values.max())
        if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-300:
            room = abs(low) / 2 if abs(low) > 1e-299 else 0.5
            low, high = low - room, high + room
        step = _nice_step((high - low) / num_steps)
        if not rounded:
            whole = bool(np.all(values == np.round(values)))
            return cls(low, high, max(1.0, step) if whole else step)
        first, last = math.floor(low / step + _SLACK), math.ceil(high / step - _SLACK)
        return cls(first * step, last * step, step)

    @classmethod
    def between(cls, low: float, high: float, *, num_steps: int) -> "Axis":
        """Return the axis from ``low`` to ``high`` exactly, with about ``num_steps`` intervals."""
        return cls(low, high, _nice_step((high - low) / num_steps))

    def place(self, values: npt.NDArray[Any] | float) -> Any:
        """Return where values lie along the axis: 0 at ``low``, 1 at ``high``, same shape."""
        return (values - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return the multiples of the step within the range, ends included."""
        first = math.ceil(self.low / self.step - _SLACK)
        last = math.floor(self.high / self.step + _SLACK)
        return [index * self.step for index in range(first, last + 1)]

    def labels(self, *, as_percent: bool = False) -> list[str]:
        """Return one label a tick, all with the same decimals and unit: ``"50k"``, ``"0.25"``."""
        ticks = self.ticks()
        if as_percent:
            return [percent(tick, decimals=_decimals(100.0 * self.step)) for tick in ticks]
        largest = max((abs(tick) for tick in ticks), default=0.0)
        if largest >= 1e13 or self.step < 1e-5:
            return [minus(f"{tick:.3g}") for tick in ticks]
        units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
        scale, unit = next((pair for pair in units if largest >= 10 * pair[0]), (1.0, ""))
        decimals = _decimals(self.step / scale)
        return [minus(f"{tick / scale:.{decimals}f}{unit}") if tick else "0" for tick in ticks]


def _nice_step(rough: float) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((n * power for n in (1.0, 2.0, 5.0) if rough <= n * power * 1.0001), 10.0 * power)


def _decimals(step: float) -> int:
    """Return how many decimals a multiple of a nice step needs."""
    return max(0, -math.floor(math.log10(step) + 1e-9))
