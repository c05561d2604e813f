"""Line charts, e.g. learning curves.

Legend: H height of the plot in pixels, L points of a line. In the drawing of the lines, x ranges
over 0–1000 and y over 0–H, downwards; the browser stretches it to the available width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.errors import UsageError
from seit.numbers import number, percent
from seit.report.axis import Axis, stretched, x_tick, y_ticks
from seit.report.line_labels import (
    LABEL_GAP,
    LineEnd,
    end_labels,
    label_widths,
    legend,
    text_width,
)
from seit.report.markup import element, frame, no_data, percent_of

_HEIGHT, _TOP, _BOTTOM = 260, 34, 48  # pixels: the plot, the room above it and below it
_MAX_POINTS = 1000  # per line; more are indistinguishable at 900 pixels
_MAX_HOVER = 120  # points of a line with tooltips
_NUM_COLORS = 6  # of the stylesheet: the accent, its counterpart, then muted ones


@dataclass(frozen=True)
class Series:
    """One line: a name and equally many ``x`` and ``y``; non-finite points are skipped.

    A ``faint`` line belongs to the next one that is not: it has its color, but no label or
    tooltips. So the runs of several seeds appear behind their mean.
    """

    name: str
    x: Sequence[float] | npt.NDArray[Any]
    y: Sequence[float] | npt.NDArray[Any]
    faint: bool = False


@dataclass(frozen=True)
class _Line:
    """A series without non-finite points: values x and y, float64 (L,)."""

    name: str
    color: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    faint: bool


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    y_format: Literal["percent", "number"] = "number",
) -> Markup:
    """Return a line chart with a label at the end of each line.

    ``y_range`` fixes the y axis, in units of y, and clips lines. With ``y_format="percent"`` y are
    fractions (0–1), shown as percentages. The first series that is not faint gets the accent color,
    the second its counterpart. Points are joined in the order given.

    Raises:
        UsageError: ``x`` and ``y`` of a series differ in length, or ``y_range`` is empty.
    """
    if y_range is not None and not (-math.inf < y_range[0] < y_range[1] < math.inf):
        raise UsageError(f"y_range is {y_range}, expected two finite numbers, the smaller first")
    full_before = accumulate((not one.faint for one in series), initial=0)
    lines = [_line(one, index) for one, index in zip(series, full_before, strict=False)]
    drawn = [line for line in lines if line.x.size]
    if not drawn:
        return no_data(title=title, kind="line-chart")

    x_axis = Axis.around(np.concatenate([line.x for line in drawn]), num_steps=6)
    all_y = np.concatenate([line.y for line in drawn])
    y_axis = (
        Axis.between(*y_range, num_steps=5)
        if y_range
        else Axis.around(all_y, num_steps=5, rounded=True)
    )
    as_text = percent if y_format == "percent" else number
    y_names = y_axis.labels(as_percent=y_format == "percent")
    named = [line for line in drawn if not line.faint]
    H = max(_HEIGHT, round(LABEL_GAP * (len(named) + 1)))
    inside = bool(y_axis.place(all_y).min() > -1e-9 and y_axis.place(all_y).max() < 1 + 1e-9)
    # Clipping also cuts half a stroke at the edge.
    paths = [_curve(line, x_axis, y_axis, H=H) for line in drawn]
    ends = [
        LineEnd(line.name, line.color, _height(line.y[-1], y_axis, H=H), as_text(float(line.y[-1])))
        for line in named
    ]
    left = 14 + text_width(y_names)
    right, narrow_right = label_widths(ends)
    chart = element(
        "svg",
        element(
            "g",
            element("text", y_label, x=0, y=-16, dx=-left, class_="axis"),
            *y_ticks([float(_height(tick, y_axis, H=H)) for tick in y_axis.ticks()], y_names),
            *(
                x_tick(x_axis.place(tick), name, H=H)
                for tick, name in zip(x_axis.ticks(), x_axis.labels(), strict=True)
            ),
            element("text", x_label, x="50%", y=H + 42, text_anchor="middle", class_="axis"),
            stretched(*paths, H=H, is_cut=not inside),
            *(
                _marks(line, x_axis, y_axis, H=H, x_label=x_label, as_text=as_text)
                for line in named
            ),
            end_labels(ends, H=H),
            transform=f"translate(0 {_TOP})",
        ),
        role="img",
        aria_label=f"{title}: {y_label} against {x_label}; "
        + ", ".join(f"{end.name} ends at {end.value}" for end in ends),
        height=_TOP + H + _BOTTOM,
        style=f"--left:{left:.0f}px;--right:{right:.0f}px;--narrow-right:{narrow_right:.0f}px",
    )
    names = legend([(line.name, line.color, bool(line.x.size)) for line in lines if not line.faint])
    return frame(chart, names, title=title, kind="line-chart")


def _line(series: Series, index: int) -> _Line:
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise UsageError(
            f"series {series.name!r} has x of shape {x.shape} and y of shape {y.shape}, "
            "expected two sequences of the same length"
        )
    keep = np.isfinite(x) & np.isfinite(y)
    return _Line(series.name, f"c{index % _NUM_COLORS}", x[keep], y[keep], series.faint)


def _height(y: Any, axis: Axis, *, H: int) -> Any:
    """Return values of y as pixels from the top of the plot."""
    return H * (1.0 - axis.place(y))


def _curve(line: _Line, x_axis: Axis, y_axis: Axis, *, H: int) -> Markup:
    """Return the polyline; a long one keeps the extremes of each stretch, so no spike is lost."""
    x, y = line.x, line.y
    if x.size > _MAX_POINTS:
        stretches = np.array_split(np.arange(x.size), _MAX_POINTS // 2 - 1)
        extremes = [s[pick(y[s])] for s in stretches for pick in (np.argmin, np.argmax)]
        keep = np.unique([0, *extremes, x.size - 1])
        x, y = x[keep], y[keep]
    points = zip(1000 * x_axis.place(x), _height(y, y_axis, H=H), strict=True)
    return element(
        "polyline",
        points=" ".join(f"{u:.2f},{v:.2f}" for u, v in points),
        class_=f"{line.color} faint" if line.faint else line.color,
    )


def _marks(
    line: _Line,
    x_axis: Axis,
    y_axis: Axis,
    *,
    H: int,
    x_label: str,
    as_text: Callable[[float], str],
) -> Markup:
    """Return the dot at the line's end, and up to 120 targets with tooltips."""
    last = line.x.size - 1
    circles = []
    for i in np.unique(np.linspace(0, last, min(last + 1, _MAX_HOVER)).round().astype(int)):
        x, y = float(line.x[i]), float(line.y[i])
        if not -1e-9 <= y_axis.place(y) <= 1 + 1e-9:
            continue  # outside a fixed y_range
        at = {"cx": percent_of(x_axis.place(x)), "cy": float(_height(y, y_axis, H=H))}
        if i == last:
            circles.append(element("circle", r=4, class_="end", **at))
        tooltip = element("title", f"{line.name}: {as_text(y)} at {x_label} {number(x)}")
        circles.append(element("circle", tooltip, r=9, class_="hit", **at))
    return element("g", *circles, class_=line.color)
