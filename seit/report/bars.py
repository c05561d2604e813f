"""Horizontal bars that compare a few sizes, such as bytes per image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from seit.numbers import number, unit_format
from seit.report.markup import element, frame, no_data, percent_of

_BAR, _ROW = 18, 22  # pixels: height of a bar and of its row


@dataclass(frozen=True)
class Bar:
    """One bar: ``value`` (0 or more, in the chart's unit) and a small ``note`` after the name."""

    name: str
    value: float
    note: str = ""


def bar_chart(bars: Sequence[Bar], *, title: str, unit_label: str, log: bool = False) -> Markup:
    """Return horizontal bars from zero, each with its value at its end.

    If the first word of ``unit_label`` is "bytes" (or "B"), values are formatted as 12.9 kB,
    otherwise with four significant digits. Two bars get the two colors of a comparison, more bars a
    single color. With ``log`` a visible axis starts one decade below that of the smallest positive
    value. A value that is not finite, negative, or 0 on a log axis gets a label but no bar.
    """
    if not bars:
        return no_data(title=title, kind="bar-chart")
    as_text = unit_format(unit_label)
    shown = [as_text(bar.value) for bar in bars]
    positive = [float(bar.value) for bar in bars if 0 < bar.value < math.inf]
    highest = max(positive, default=1.0)
    first = math.floor(math.log10(min(positive, default=1.0))) - 1
    decades = math.log10(highest) - first

    def length(value: float) -> float:
        """Return the length of a value's bar as a share of the width, 0–1."""
        if not 0 < value < math.inf:
            return 0.0
        return (math.log10(value) - first) / decades if log else value / highest

    # A log axis may span many decades; draw at most five labels.
    stride = max(1, math.ceil(decades / 5))
    powers = (
        range(first, first + math.floor(decades + 1e-9) + 1, stride) if log and positive else ()
    )
    ticks = [((power - first) / decades, 10.0**power) for power in powers]
    items = [
        _item(bar, value, length(bar.value), color=index if len(bars) == 2 else 0, ticks=ticks)
        for index, (bar, value) in enumerate(zip(bars, shown, strict=True))
    ]
    axis = [
        element("text", as_text(tick), x=percent_of(at), y=14, class_="tick") for at, tick in ticks
    ]
    if axis:
        items.append(
            element("li", element("svg", *axis, height=20, aria_hidden="true"), class_="scale")
        )
    margin = f"--right:{20 + 7.6 * max(len(value) for value in shown):.0f}px"
    return frame(
        element("ul", *items, class_="bars", style=margin),
        title=title,
        note=f"{unit_label}, log scale" if log else unit_label,
        kind="bar-chart",
    )


def _item(
    bar: Bar, value: str, length: float, *, color: int, ticks: Sequence[tuple[float, float]]
) -> Markup:
    """Return one bar of ``length`` (0–1) below its name, over the lines of a log axis."""
    note = [" ", element("small", bar.note)] if bar.note else []
    marks = [
        element("line", x1=percent_of(at), x2=percent_of(at), y1=-3, y2=_ROW + 3, class_="grid")
        for at, _ in ticks
    ]
    exact = element("title", f"{bar.name}: {value} ({number(bar.value)})")
    drawing = element(
        "svg",
        *marks,
        element(
            "rect", exact, width=percent_of(length), height=_BAR, y=2, rx=2, class_=f"bar c{color}"
        ),
        element(
            "text", value, x=percent_of(length), y=2 + _BAR / 2, dx=8, dy=".35em", class_="value"
        ),
        height=_ROW,
        role="img",
        aria_label=f"{bar.name}: {value}",
    )
    return element("li", element("div", bar.name, *note, class_="name"), drawing)
