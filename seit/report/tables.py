"""Tables, and tiles with one large number each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from seit.errors import UsageError
from seit.numbers import number
from seit.report.markup import element, frame, no_data

# "1,290", "93.4%", "−0.2", "12.9 kB", "10×", "3 h": a number with an optional short unit.
_NUMERIC = re.compile(r"[-−+±~≈<>]?\s*\d[\d,.]*(e[-+]?\d+)?\s*(%|×|[a-zA-Zµ]{1,3}(/[a-zA-Z]+)?)?")
_MISSING = ("", "–", "-")


@dataclass(frozen=True)
class Figure:
    """One tile: a quantity, its value (a number is formatted), and a note below it."""

    label: str
    value: str | float
    note: str = ""


def figures(items: Sequence[Figure]) -> Markup:
    """Return tiles of large numbers, in the order given; empty for no items."""
    tiles = [
        element(
            "div",
            element("dt", item.label),
            element("dd", _shown(item.value), class_="value"),
            *([element("dd", item.note, class_="note")] if item.note else []),
        )
        for item in items
    ]
    return element("dl", *tiles, class_="figures") if tiles else Markup("")


def table(
    rows: Sequence[Sequence[object]], *, header: Sequence[str], title: str = "", caption: str = ""
) -> Markup:
    """Return a table; a column of numbers (or of text such as "12.9 kB") is right-aligned.

    Integers get thousands separators, floats four significant digits, None a dash; everything else
    is shown as text. ``caption`` is shown small below the table.

    Raises:
        UsageError: a row is longer or shorter than the header.
    """
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise UsageError(
                f"row {index} of table {title!r} has {len(row)} cells, expected {len(header)}"
            )
    if not rows:
        return no_data(title=title, kind="table")
    shown = [[_shown(cell) for cell in row] for row in rows]
    sides = ["number" if _is_numeric(column) else None for column in zip(*shown, strict=True)]
    head = [
        element("th", name, class_=side, scope="col")
        for name, side in zip(header, sides, strict=True)
    ]
    body = [
        element("tr", *(element("td", c, class_=side) for c, side in zip(row, sides, strict=True)))
        for row in shown
    ]
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    below = [element("p", caption, class_="caption")] if caption else []
    return frame(element("div", whole, class_="scroll"), *below, title=title, kind="table")


def _shown(value: object) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "–"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return value if isinstance(value, Markup) else str(value)


def _is_numeric(column: Sequence[str]) -> bool:
    known = [cell.strip() for cell in column if cell.strip() not in _MISSING]
    return bool(known) and all(_NUMERIC.fullmatch(cell) for cell in known)
