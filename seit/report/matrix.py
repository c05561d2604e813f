"""Matrices of shaded cells, with row and column names.

Legend: N rows, M columns.
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
    """A cell: its place, color, opacity and texts, and the address that it links to, if any."""

    row: int
    column: int
    opacity: float
    color: int
    tooltip: str
    written: str
    is_empty: bool
    link: str | None = None


def cell_matrix(
    cells: Sequence[Cell],
    *,
    names: Sequence[str],
    key: Sequence[tuple[int | None, str]],
    title: str,
    note: str,
    label: str,
    columns: Sequence[str] | None = None,
) -> Markup:
    """Return a figure of N × M cells; with many rows only non-empty ones are drawn.

    Args:
        cells: cells in drawing order.
        names: N names of rows.
        key: meaning of each color; further remarks with None.
        title: title of the figure.
        note: meaning of rows and columns.
        label: text for screen readers.
        columns: M names of columns; those of the rows by default.
    """
    columns = names if columns is None else columns
    N, M = len(names), len(columns)
    size = max(N, M)
    is_written = size <= MAX_WRITTEN
    # Without numbers an empty cell shows nothing, and 100 rows would have 10,000 of them.
    drawn = [cell for cell in cells if is_written or not cell.is_empty]
    is_named = size <= MAX_NAMES
    rows, tops = (
        [shorten(str(name), limit=_NAME_LIMIT) for name in all_names] if is_named else []
        for all_names in (names, columns)
    )
    beside = [_row_name(index, name, N=N) for index, name in enumerate(rows)]
    above = [_column_name(index, name, M=M) for index, name in enumerate(tops)]
    left = 16 + 7 * max((len(name) for name in rows), default=0)
    top = 16 + 7 * max((len(name) for name in tops), default=0)
    slant = round(0.72 * top) + 4 if is_named else 8  # column names are slanted by 45°
    drawing = element(
        "svg",
        element("rect", width="100%", height="100%", class_="ground"),
        element("svg", *map(_cell, drawn), viewBox=f"0 0 {M} {N}", preserveAspectRatio="none"),
        *(_number(cell, N=N, M=M) for cell in drawn if is_written),
        *beside,
        *above,
        class_="written" if is_written else "named" if is_named else "bare",
        role="img",
        aria_label=label,
        style=f"--left:{left}px;--slant:{slant}px;--classes:{M};aspect-ratio:{M}/{N};"
        f"max-width:{max(240, M * _CELL)}px",
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
    drawn = element(
        "rect",
        element("title", cell.tooltip),
        x=cell.column,
        y=cell.row,
        width=1,
        height=1,
        fill_opacity=cell.opacity,
        class_=f"cell c{cell.color}",
    )
    if cell.link is None:
        return drawn
    return element("a", drawn, href=cell.link, aria_label=cell.tooltip)


def _number(cell: Cell, *, N: int, M: int) -> Markup:
    """Return the text at the center of its cell, colored to contrast with the shade."""
    opacity = cell.opacity
    kind = "full" if opacity > 0.82 else "half" if opacity > 0.6 else None
    if cell.is_empty:
        kind = "zero"
    return element(
        "text",
        cell.written,
        x=percent_of((cell.column + 0.5) / M),
        y=percent_of((cell.row + 0.5) / N),
        dy=".35em",
        text_anchor="middle",
        class_="count" if kind is None else f"count {kind}",
    )


def _row_name(index: int, name: str, *, N: int) -> Markup:
    """Return the name to the left of its row."""
    at = percent_of((index + 0.5) / N)
    return element("text", name, x=0, y=at, dx=-8, dy=".35em", text_anchor="end", class_="tick")


def _column_name(index: int, name: str, *, M: int) -> Markup:
    """Return the name, slanted, above its column."""
    # A nested drawing moves the origin to the column, so that a rotation can start there.
    slanted = element("text", name, transform="translate(3 -6) rotate(-45)", class_="column tick")
    at = percent_of((index + 0.5) / M)
    return element("svg", slanted, x=at, y=0, width=1, height=1, overflow="visible")
