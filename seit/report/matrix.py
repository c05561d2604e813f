"""Square matrices of shaded cells, with row and column names.

Legend: N rows, and as many columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from seit.report.markup import element, frame, percent_of, shorten

MAX_WRITTEN = 20
"""Up to this many rows, values are written into the cells."""
MAX_NAMES = 40
"""Up to this many rows, names are shown next to the matrix."""
MAX_CELLS = 100
"""A matrix with more rows is unreadable."""

_NAME_LIMIT = 16  # characters of a name next to the matrix
_CELL = 46  # pixels; maximum size of a cell


class Cell(NamedTuple):
    """A cell: its place, color, opacity and texts."""

    row: int
    column: int
    opacity: float
    color: int
    tooltip: str
    written: str
    is_empty: bool


def square_matrix(
    cells: Sequence[Cell],
    *,
    names: Sequence[str],
    key: Sequence[tuple[int | None, str]],
    title: str,
    note: str,
    label: str,
) -> Markup:
    """Return a figure of N × N cells; with many rows only non-empty ones are drawn.

    Args:
        cells: cells in drawing order.
        names: N names, of rows and columns alike.
        key: meaning of each color; further remarks with None.
        title: title of the figure.
        note: meaning of rows and columns.
        label: text for screen readers.
    """
    N = len(names)
    is_written = N <= MAX_WRITTEN
    # Without numbers an empty cell shows nothing, and 100 rows would have 10,000 of them.
    drawn = [cell for cell in cells if is_written or not cell.is_empty]
    short = [shorten(str(name), limit=_NAME_LIMIT) for name in names] if N <= MAX_NAMES else []
    beside = [tick for index, name in enumerate(short) for tick in _names(index, name, N=N)]
    left = 16 + 7 * max((len(name) for name in short), default=0)
    slant = round(0.72 * left) + 4 if short else 8  # column names are slanted by 45°
    drawing = element(
        "svg",
        element("rect", width="100%", height="100%", class_="ground"),
        element("svg", *map(_cell, drawn), viewBox=f"0 0 {N} {N}", preserveAspectRatio="none"),
        *(_number(cell, N=N) for cell in drawn if is_written),
        *beside,
        class_="written" if is_written else "named" if short else "bare",
        role="img",
        aria_label=label,
        style=f"--left:{left}px;--slant:{slant}px;--classes:{N};max-width:{max(240, N * _CELL)}px",
    )
    said = element(
        "ul",
        *(
            element("li", text, class_="empty")
            if color is None
            else element("li", element("i", "", class_=f"c{color}"), text)
            for color, text in key
        ),
        class_="key",
    )
    scroll = element("div", drawing, class_="scroll")
    return frame(scroll, said, title=title, note=note, kind="matrix")


def _cell(cell: Cell) -> Markup:
    """Return the colored cell, in units of one cell."""
    return element(
        "rect",
        element("title", cell.tooltip),
        x=cell.column,
        y=cell.row,
        width=1,
        height=1,
        fill_opacity=cell.opacity,
        class_=f"cell c{cell.color}",
    )


def _number(cell: Cell, *, N: int) -> Markup:
    """Return the text at the center of its cell, colored to contrast with the shade."""
    opacity = cell.opacity
    kind = "full" if opacity > 0.82 else "half" if opacity > 0.6 else None
    if cell.is_empty:
        kind = "zero"
    return element(
        "text",
        cell.written,
        x=percent_of((cell.column + 0.5) / N),
        y=percent_of((cell.row + 0.5) / N),
        dy=".35em",
        text_anchor="middle",
        class_="count" if kind is None else f"count {kind}",
    )


def _names(index: int, name: str, *, N: int) -> tuple[Markup, Markup]:
    """Return the name to the left of its row and, slanted, above its column."""
    at = percent_of((index + 0.5) / N)
    row = element("text", name, x=0, y=at, dx=-8, dy=".35em", text_anchor="end", class_="tick")
    # A nested drawing moves the origin to the column, so that a rotation can start there.
    slanted = element("text", name, transform="translate(3 -6) rotate(-45)", class_="column tick")
    column = element("svg", slanted, x=at, y=0, width=1, height=1, overflow="visible")
    return row, column
