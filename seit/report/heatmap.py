"""Heat map of a learner's accuracy on each task after each task.

Legend: T tasks.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from seit.errors import UsageError
from seit.numbers import percent
from seit.report.markup import no_data
from seit.report.matrix import MAX_CELLS, Cell, cell_matrix


def task_matrix(accuracies: npt.NDArray[Any], *, tasks: Sequence[str], title: str) -> Markup:
    """Return a heat map of accuracies float (T, T), 0–1: row after a task, column on a task.

    Cells right of the diagonal, of future tasks, have a color of their own; NaN is a dash. Of more
    than 100 tasks, evenly spaced ones are drawn.

    Raises:
        UsageError: ``accuracies`` is not (T, T) for T names.
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)
    T = len(tasks)
    if accuracies.shape != (T, T):
        raise UsageError(
            f"accuracies are of shape {accuracies.shape}, expected ({T}, {T}) for {T} tasks"
        )
    if not T or np.isnan(accuracies).all():
        return no_data(title=title, kind="matrix")
    stride = math.ceil(T / MAX_CELLS)
    # Always include the last task.
    shown = list(range(T - 1, -1, -stride))[::-1]
    cells = [
        _cell(row, column, float(accuracies[i, j]), after=tasks[i], on=tasks[j])
        for row, i in enumerate(shown)
        for column, j in enumerate(shown)
    ]
    key: list[tuple[int | None, str]] = [(0, "tasks learnt")]
    if np.isfinite(accuracies[np.triu_indices(T, 1)]).any():
        key.append((1, "tasks to come"))
    key.append((None, "per cent right; the stronger, the more"))
    last = np.nanmean(accuracies[-1]) if np.isfinite(accuracies[-1]).any() else math.nan
    return cell_matrix(
        cells,
        names=[tasks[index] for index in shown],
        key=key,
        title=title,
        note="rows: after the task · columns: on the task"
        + (f" · one of {stride} tasks, of {T}" if stride > 1 else ""),
        label=f"{title}: accuracies on {T} tasks after each of them, "
        f"{percent(float(last))} on average after the last",
    )


def _cell(row: int, column: int, accuracy: float, *, after: str, on: str) -> Cell:
    is_known = math.isfinite(accuracy)
    return Cell(
        row,
        column,
        opacity=min(1.0, max(0.0, accuracy)) if is_known else 0.0,
        color=0 if column <= row else 1,
        tooltip=f"after {after}, on {on}: {percent(accuracy)}",
        written=f"{100 * accuracy:.0f}" if is_known else "–",
        is_empty=not is_known,
    )
