"""Axes: value ranges, round ticks, and their drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.numbers import minus, percent
from seit.report.markup import element, percent_of

_TICK_GAP = 0.07  # of the width, between labels of a logarithmic axis
_SLACK = 1e-6  # steps; tolerance for ticks at the ends


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

        ``rounded`` extends both ends to a tick. A single value gets room on both sides. Integer
        values get integer ticks: there is no epoch 2.5.
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
        """Return the position of values along the axis: 0 at ``low``, 1 at ``high``, same shape."""
        return (values - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return the multiples of the step within the range, including the ends."""
        first = math.ceil(self.low / self.step - _SLACK)
        last = math.floor(self.high / self.step + _SLACK)
        return [index * self.step for index in range(first, last + 1)]

    def labels(self, *, as_percent: bool = False) -> list[str]:
        """Return one label per tick, all with the same decimals and unit: ``"50k"``, ``"0.25"``."""
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


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis: the decimal logarithms of its ends, ``low`` < ``high``."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "LogAxis":
        """Return the axis over positive values, with some room on both sides."""
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(0.05, 0.06 * (high - low)) if high > low else 0.3
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        """Return the position of a value along the axis: 0 at its low end, 1 at its high end."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return powers of ten, with 2 and 5 times them if there is room, within the range.

        A range with fewer than two of them gets multiples of a round step.
        """
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            ticks = [factor * 10.0**decade for decade in decades for factor in factors]
            inside = [tick for tick in ticks if self.low <= math.log10(tick) <= self.high]
            if len(inside) < 2:
                break
            places = [self.place(tick) for tick in inside]
            if all(right - left >= _TICK_GAP for left, right in pairwise(places)):
                return inside
        if len(inside) < 2:
            return Axis.between(10.0**self.low, 10.0**self.high, num_steps=4).ticks()
        return inside[:: math.ceil(len(inside) * _TICK_GAP)]


def _nice_step(rough: float) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((n * power for n in (1.0, 2.0, 5.0) if rough <= n * power * 1.0001), 10.0 * power)


def _decimals(step: float) -> int:
    """Return the number of decimals of multiples of a round step."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


def y_ticks(heights: Sequence[float], names: Sequence[str]) -> list[Markup]:
    """Return a line across the plot and a label to its left for each height in pixels."""
    marks = []
    for y, name in zip(heights, names, strict=True):
        marks += [
            element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"),
            element("text", name, x=0, y=y, dx=-10, dy=".35em", text_anchor="end", class_="y tick"),
        ]
    return marks


def x_tick(place: float, name: str, *, H: int) -> Markup:
    """Return the label of a position (0–1) below a plot of H pixels."""
    x = percent_of(place)
    return element("text", name, x=x, y=H + 20, text_anchor="middle", class_="x tick")


def stretched(*lines: Markup, H: int, is_cut: bool = False) -> Markup:
    """Return a drawing of 1000 × H units, as wide as the plot; ``is_cut`` clips it."""
    return element(
        "svg",
        *lines,
        viewBox=f"0 0 1000 {H}",
        preserveAspectRatio="none",
        width="100%",
        height=H,
        overflow="hidden" if is_cut else "visible",
    )
