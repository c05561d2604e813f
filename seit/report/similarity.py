"""Heat map of similarities between two lists of things.

Legend: N rows, M columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.errors import UsageError
from seit.report.markup import no_data
from seit.report.matrix import Cell, cell_matrix


def similarity_map(
    values: npt.NDArray[Any],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    note: str = "",
) -> Markup:
    """Return a heat map of similarities float (N, M), 0–1; values below 0 are shown as 0.

    Raises:
        UsageError: ``values`` is not (N, M) for the names.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(rows), len(columns)):
        raise UsageError(
            f"similarities are of shape {values.shape}, expected ({len(rows)}, {len(columns)})"
        )
    if not values.size:
        return no_data(title=title, kind="matrix")
    cells = [
        Cell(
            row=row,
            column=column,
            opacity=round(float(np.clip(values[row, column], 0, 1)), 3),
            color=0,
            tooltip=f"{rows[row]} and {columns[column]}: {values[row, column]:.3f}",
            written=f"{values[row, column]:.2f}",
            is_empty=bool(values[row, column] <= 0),
        )
        for row in range(len(rows))
        for column in range(len(columns))
    ]
    return cell_matrix(
        cells,
        names=rows,
        columns=columns,
        key=[(0, "similarity, 0 to 1; the stronger, the more")],
        title=title,
        note=note,
        label=f"{title}: {len(rows)} × {len(columns)} similarities",
    )
