"""Summaries of objects for notebooks: a small escaped table, with a picture where there is one."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from seit.report.markup import element, shorten
from seit.report.pictures import data_uri

_LONG = 200
"""Characters of a value."""
_SIDE = 256
"""Pixels of a picture's longer side."""


def summary_table(
    title: str,
    rows: Iterable[tuple[str, object]],
    *,
    picture: npt.NDArray[np.uint8] | None = None,
) -> str:
    """Return an HTML table of names and values, escaped.

    Args:
        title: caption.
        rows: names and values; values are cut to 200 characters.
        picture: uint8 (height, width, 3), shown below the table.
    """
    body = (
        element("tr", element("th", name), element("td", shorten(str(value), limit=_LONG)))
        for name, value in rows
    )
    table = element("table", element("caption", title), element("tbody", *body))
    if picture is None:
        return str(table)
    return str(
        element("div", table, element("img", src=data_uri(picture, longest=_SIDE), alt=title))
    )
