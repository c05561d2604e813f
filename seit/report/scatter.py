"""Scatter charts: families of points over a logarithmic x axis, with error bars and names.

A chart goes into a page, where it follows the page's colors and width, or into an SVG file. Both
share their contents: widths in percent of the plot, heights and text in pixels.

Legend: H height of the plot in pixels. In the drawing of the lines, x ranges over 0–1000.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from markupsafe import Markup

from seit.errors import UsageError
from seit.numbers import number, percent, unit_format
from seit.report.axis import Axis, LogAxis, stretched, x_tick, y_ticks
from seit.report.line_labels import text_width
from seit.report.markup import element, frame, no_data, percent_of
from seit.report.scatter_labels import Box, Place, place_labels

_H, _TOP, _BOTTOM, _RIGHT = 340, 34, 50, 24  # pixels: the plot and the room around it
_PLOT_WIDTH = 740  # pixels; assumed when placing labels
_LEGEND_ROW = 24
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "M-4.5 -4.5H4.5V4.5H-4.5z",
    "M0 -6L5.6 4.4H-5.6z",
    "M0 -6.4L6.4 0L0 6.4L-6.4 0z",
    "M0 6L5.6 -4.4H-5.6z",
    "M-5 -2H-2V-5H2V-2H5V2H2V5H-2V2H-5z",
)
"""Disc, square, triangle, diamond, inverted triangle, cross; of about equal area."""
_FILE_COLORS = ("#0b63b5", "#b94d05", "#00805e", "#8a4fa0", "#6b7280", "#a0791a")
"""Colors of the page's stylesheet in its light mode."""


@dataclass(frozen=True)
class Mark:
    """A point: ``x`` above 0, and ``y`` with a symmetric ``error``, 0 for no bar.

    ``is_marked`` rings it; marked points are joined by steps that rise with x.
    """

    name: str
    x: float
    y: float
    error: float = 0.0
    is_marked: bool = False


@dataclass(frozen=True)
class Family:
    """Points of one kind, in one color and shape; ``is_joined`` draws a line through them."""

    name: str
    marks: Sequence[Mark]
    is_joined: bool = True


def scatter_chart(
    families: Sequence[Family],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_format: Literal["percent", "number"] = "number",
    note: str = "",
) -> Markup:
    """Return a chart of named points for a page.

    If the first word of ``x_label`` is "bytes", values are formatted as 12.9 kB. With
    ``y_format="percent"`` y are fractions (0–1), shown as percentages. The n-th family has the n-th
    color, even if families before it have no points. Marks that are not finite, or have no positive
    x, are left out.
    """
    plot = _Plot.of(families, x_label=x_label, y_label=y_label, y_format=y_format)
    if plot is None:
        return no_data(title=title, kind="scatter-chart")
    chart = element(
        "svg",
        _style(
            [f"var(--c{index})" for index in range(len(_FILE_COLORS))],
            ink="currentColor",
            quiet="var(--quiet)",
            hair="var(--hair)",
            ground="var(--ground)",
            more="@media (max-width:620px){.scatter .name{display:none}}",
        ),
        element("g", *plot.draw(), transform=f"translate(0 {_TOP})"),
        class_="scatter",
        role="img",
        aria_label=plot.describe(title),
        height=_TOP + _H + _BOTTOM,
        style=f"width:calc(100% - {plot.left + _RIGHT:.0f}px);margin-left:{plot.left:.0f}px",
    )
    items = [
        element(
            "li",
            element(
                "svg",
                element("path", d=shape, class_=f"mark {color}"),
                width=14,
                height=14,
                viewBox="-7 -7 14 14",
                class_="scatter",
                style="display:inline-block;vertical-align:-2px;margin-right:7px",
                aria_hidden="true",
            ),
            name,
        )
        for name, color, shape in plot.legend()
    ]
    return frame(
        chart, element("ul", *items, class_="legend"), title=title, note=note, kind="scatter-chart"
    )


def scatter_svg(
    families: Sequence[Family],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_format: Literal["percent", "number"] = "number",
    note: str = "",
) -> str:
    """Return the chart as a standalone SVG document, on white, with title and legend."""
    plot = _Plot.of(families, x_label=x_label, y_label=y_label, y_format=y_format)
    left = plot.left + 12 if plot else 60.0
    width = left + _PLOT_WIDTH + _RIGHT
    head = 56 + _LEGEND_ROW
    body: list[Markup] = [element("text", "no data", x=left, y=head + 60, class_="tick")]
    if plot:
        body = [
            _file_legend(plot, left),
            element(
                "svg",
                element("g", *plot.draw(), transform=f"translate(0 {_TOP})"),
                x=left,
                y=head,
                width=_PLOT_WIDTH,
                height=_TOP + _H + _BOTTOM,
                overflow="visible",
            ),
        ]
    document = element(
        "svg",
        _style(_FILE_COLORS, ink="#1b1f24", quiet="#5d6671", hair="#e3e6ea", ground="#ffffff"),
        element("rect", width="100%", height="100%", fill="#ffffff"),
        element("text", title, x=left, y=28, font_weight=600, font_size=16),
        element("text", note, x=left, y=48, class_="tick"),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        class_="scatter",
        width=width,
        height=head + _TOP + _H + _BOTTOM,
        viewBox=f"0 0 {width:.0f} {head + _TOP + _H + _BOTTOM}",
        font_family="system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
        font_size=13,
        role="img",
        aria_label=plot.describe(title) if plot else f"{title}: no data",
    )
    return f"{document}\n"


def _file_legend(plot: "_Plot", left: float) -> Markup:
    items, x = [], left + 7
    for name, color, shape in plot.legend():
        items.append(
            element(
                "g",
                element("path", d=shape, class_=f"mark {color}"),
                element("text", name, x=13, dy=".35em"),
                transform=f"translate({x:.0f} {56 + _LEGEND_ROW / 2:.0f})",
            )
        )
        x += 36 + text_width([name])
    return element("g", *items)


def _style(
    colors: Sequence[str], *, ink: str, quiet: str, hair: str, ground: str, more: str = ""
) -> Markup:
    """Return the chart's style rules, in the colors of the page or of the file."""
    rules = [
        f".scatter text{{fill:{ink}}}",
        f".scatter .tick,.scatter .axis{{fill:{quiet};font-size:12px}}",
        f".scatter .name{{font-size:12px;paint-order:stroke;stroke:{ground};stroke-width:3px}}",
        f".scatter .grid{{stroke:{hair};stroke-width:1}}",
        f".scatter .mark{{stroke:{ground};stroke-width:1}}",
        f".scatter .ring{{fill:none;stroke:{ink};stroke-width:1.25}}",
        f".scatter .front{{fill:none;stroke:{quiet};stroke-width:1.25;stroke-dasharray:4 4;"
        "vector-effect:non-scaling-stroke}",
        ".scatter .error,.scatter .join{fill:none;stroke-width:1.5}",
        ".scatter .join{vector-effect:non-scaling-stroke;opacity:.55}",
    ]
    for index, color in enumerate(colors):
        rules += [
            f".scatter .mark.c{index}{{fill:{color}}}",
            f".scatter .error.c{index},.scatter .join.c{index}{{stroke:{color}}}",
        ]
    return element("style", Markup("".join([*rules, more])))  # noqa: S704  trusted: no user input


@dataclass(frozen=True)
class _Plot:
    """Families and axes of a chart, and their drawing."""

    families: tuple[tuple[int, Family], ...]
    x_axis: LogAxis
    y_axis: Axis
    x_label: str
    y_label: str
    is_percent: bool

    @classmethod
    def of(
        cls, families: Sequence[Family], *, x_label: str, y_label: str, y_format: str
    ) -> "_Plot | None":
        if y_format not in ("percent", "number"):
            raise UsageError(f"y_format is {y_format!r}; expected 'percent' or 'number'")
        kept = [
            (index, Family(family.name, marks, family.is_joined))
            for index, family in enumerate(families)
            if (marks := [mark for mark in family.marks if _is_drawable(mark)])
        ]
        if not kept:
            return None
        marks = [mark for _, family in kept for mark in family.marks]
        ends = [end for mark in marks for end in (mark.y - mark.error, mark.y + mark.error)]
        values = np.array(ends, dtype=np.float64)
        if y_format == "percent":
            values = values.clip(0.0, 1.0)
        return cls(
            families=tuple(kept),
            x_axis=LogAxis.around([mark.x for mark in marks]),
            y_axis=Axis.around(values, num_steps=5, rounded=True),
            x_label=x_label,
            y_label=y_label,
            is_percent=y_format == "percent",
        )

    @property
    def left(self) -> float:
        """Width in pixels of the labels of the y axis, left of the plot."""
        return 14 + text_width(self.y_axis.labels(as_percent=self.is_percent))

    @property
    def marks(self) -> list[Mark]:
        """All marks, family by family."""
        return [mark for _, family in self.families for mark in family.marks]

    def x(self, value: float) -> float:
        return self.x_axis.place(value)

    def y(self, value: float) -> float:
        """Return the clamped height of a value, in pixels from the top of the plot."""
        return _H * (1.0 - min(1.0, max(0.0, float(self.y_axis.place(value)))))

    def x_text(self, value: float) -> str:
        return unit_format(self.x_label)(value)

    def y_text(self, value: float) -> str:
        return percent(value) if self.is_percent else number(value)

    def say(self, mark: Mark) -> str:
        error = f" ± {self.y_text(mark.error)}" if mark.error else ""
        return f"{mark.name}: {self.y_text(mark.y)}{error} at {self.x_text(mark.x)}"

    def describe(self, title: str) -> str:
        """Return a description of the chart in words."""
        marks = "; ".join(map(self.say, self.marks))
        return f"{title}: {self.y_label} against {self.x_label}, log scale; {marks}"

    def legend(self) -> list[tuple[str, str, str]]:
        """Return name, color and shape of each family."""
        return [(family.name, _color(index), _shape(index)) for index, family in self.families]

    def draw(self) -> list[Markup]:
        """Return the axes, lines, points and names."""
        return [
            element("text", self.y_label, x=0, y=-16, dx=-self.left, class_="axis"),
            *self._grid(),
            element(
                "text",
                f"{self.x_label}, log scale",
                x="50%",
                y=_H + 44,
                text_anchor="middle",
                class_="axis",
            ),
            stretched(*self._lines(), H=_H),
            *(self._point(mark, index) for index, family in self.families for mark in family.marks),
            *self._names(),
        ]

    def _grid(self) -> list[Markup]:
        y_names = self.y_axis.labels(as_percent=self.is_percent)
        items = y_ticks([self.y(tick) for tick in self.y_axis.ticks()], y_names)
        for tick in self.x_axis.ticks():
            x = percent_of(self.x(tick))
            items += [
                element("line", x1=x, x2=x, y1=0, y2=_H, class_="grid"),
                x_tick(self.x(tick), self.x_text(tick), H=_H),
            ]
        return items

    def _lines(self) -> list[Markup]:
        lines = []
        front = sorted((mark for mark in self.marks if mark.is_marked), key=lambda mark: mark.x)
        if len(front) > 1:
            corners = [(front[0].x, front[0].y)]
            for before, after in pairwise(front):
                corners += [(after.x, before.y), (after.x, after.y)]
            lines.append(element("polyline", points=self._path(corners), class_="front"))
        for index, family in self.families:
            if family.is_joined and len(family.marks) > 1:
                points = self._path([(mark.x, mark.y) for mark in family.marks])
                lines.append(element("polyline", points=points, class_=f"join {_color(index)}"))
        return lines

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{1000 * self.x(x):.2f},{self.y(y):.2f}" for x, y in points)

    def _point(self, mark: Mark, index: int) -> Markup:
        """Return a mark with its error bar and ring, with the origin at the point."""
        y = self.y(mark.y)
        parts = [element("title", self.say(mark))]
        if mark.error:
            top, bottom = self.y(mark.y + mark.error) - y, self.y(mark.y - mark.error) - y
            bar = f"M0 {top:.2f}V{bottom:.2f}M-4 {top:.2f}H4M-4 {bottom:.2f}H4"
            parts.append(element("path", d=bar, class_=f"error {_color(index)}"))
        if mark.is_marked:
            parts.append(element("circle", r=9, class_="ring"))
        parts.append(element("path", d=_shape(index), class_=f"mark {_color(index)}"))
        x = percent_of(self.x(mark.x))
        return element("svg", *parts, x=x, y=y, width=1, height=1, overflow="visible")

    def _names(self) -> list[Markup]:
        marks = self.marks
        places = [
            Place(
                x=_PLOT_WIDTH * self.x(mark.x),
                y=self.y(mark.y),
                width=text_width([mark.name]) * 12 / 13,
                reach=11 if mark.is_marked else 7,
            )
            for mark in marks
        ]
        bars = [
            Box(place.x - 4, self.y(mark.y + mark.error), place.x + 4, self.y(mark.y - mark.error))
            for mark, place in zip(marks, places, strict=True)
            if mark.error
        ]
        around = Box(0, -14, _PLOT_WIDTH + _RIGHT, _H + 4)
        labels = place_labels(places, obstacles=bars, around=around)
        return [
            element(
                "text",
                mark.name,
                x=percent_of(self.x(mark.x)),
                y=place.y + label.dy,
                dx=label.dx,
                text_anchor=label.anchor,
                class_="name",
            )
            for mark, place, label in zip(marks, places, labels, strict=True)
        ]


def _is_drawable(mark: Mark) -> bool:
    return 0 < mark.x < math.inf and math.isfinite(mark.y) and 0 <= mark.error < math.inf


def _color(index: int) -> str:
    return f"c{index % len(_FILE_COLORS)}"


def _shape(index: int) -> str:
    return _SHAPES[index % len(_SHAPES)]
