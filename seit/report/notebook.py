"""Summaries of objects for notebooks: a small escaped table, with an optional picture."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from seit.report.markup import element, shorten
from seit.report.pictures import data_uri

_LONG = 200
"""Maximum number of characters of a value."""
_SIDE = 256
"""Longer side of a picture, in pixels."""


def summary_table(
    title: str,
    rows: Iterable[tuple[str, object]],
    *,
    picture: npt.NDArray[np.uint8] | None = None,
) -> str:
    """Return an escaped HTML table of names and values, the latter cut to 200 characters.

    ``picture``, uint8 (height, width, 3), is shown below the table.
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
