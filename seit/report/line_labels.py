"""Names of lines: at their ends if there is room, otherwise in a legend."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from seit.report.markup import element, shorten

LABEL_GAP = 19.0
"""Pixels between the baselines of two labels."""

_CHARACTER = 7.3  # pixels; generous mean width of a character at the chart's text size
_LEADER = 34  # pixels; gap between plot and label, with some margin after it
_NAME_LIMIT = 24  # characters


@dataclass(frozen=True)
class LineEnd:
    """The end of one line: its ``height`` in pixels from the top and its last value as text."""

    name: str
    color: str
    height: float
    value: str


def text_width(texts: Sequence[str]) -> float:
    """Return the approximate width in pixels of the longest text; 0 for none."""
    return _CHARACTER * max((len(one) for one in texts), default=0)


def label_widths(ends: Sequence[LineEnd]) -> tuple[float, float]:
    """Return the width in pixels of labels right of the plot: in full, and without names."""
    values = _LEADER + text_width([end.value for end in ends])
    return values + text_width([_short(end.name) for end in ends]), values


def end_labels(ends: Sequence[LineEnd], *, H: int) -> Markup:
    """Return each line's value and name right of a plot of H pixels, without overlap."""
    anchors = [min(max(end.height, 0.0), float(H)) for end in ends]
    labels = []
    for end, anchor, height in zip(ends, anchors, _spread(anchors, high=float(H)), strict=True):
        leader = f"M8 {anchor:.2f}L20 {height:.2f}"
        labels += [
            element("path", d=leader, class_=f"leader {end.color}"),
            element(
                "text",
                element("title", end.name),
                element("tspan", end.value, class_="value"),
                element("tspan", f" {_short(end.name)}", class_="name"),
                x=25,
                y=height,
                dy=".35em",
                class_="end-label",
            ),
        ]
    # A nested drawing puts the origin at the right edge, wherever that is.
    return element("svg", *labels, x="100%", width=1, height=H, overflow="visible")


def legend(names: Sequence[tuple[str, str, bool]]) -> Markup:
    """Return names next to their colors, for (name, color, whether there is a line).

    Shown if the screen has no room for names at the ends, and always for a line without data.
    """
    items = [
        element(
            "li",
            element("i", "", class_=color),
            name if drawn else f"{name} (no data)",
            class_=None if drawn else "empty",
        )
        for name, color, drawn in names
    ]
    return element("ul", *items, class_="legend")


def _spread(wanted: Sequence[float], *, high: float) -> list[float]:
    """Return the heights within 0–``high`` closest to the wanted ones that keep the label gap.

    Least squares, by pooling neighbors that are too close around their mean. If there are more
    labels than fit, they start at 0 and exceed ``high``.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    pools: list[tuple[float, int]] = []  # (mean height of the first label, number of labels)
    for rank, index in enumerate(order):
        mean, size = wanted[index] - rank * LABEL_GAP, 1
        while pools and pools[-1][0] > mean:
            above, more = pools.pop()
            mean, size = (mean * size + above * more) / (size + more), size + more
        pools.append((mean, size))
    room = max(0.0, high - (len(order) - 1) * LABEL_GAP)
    starts = [min(max(mean, 0.0), room) for mean, size in pools for _ in range(size)]
    heights = [0.0] * len(wanted)
    for rank, (index, start) in enumerate(zip(order, starts, strict=True)):
        heights[index] = start + rank * LABEL_GAP
    return heights


def _short(name: str) -> str:
    return shorten(name, limit=_NAME_LIMIT)
