"""Metrics of continual learning: each definition in use under its own name.

Everything is computed from the accuracy matrix R, float64 (T, T): R[t, i] is the accuracy on the
evaluated samples of task i after learning task t, among all classes seen up to t
(class-incremental: no task identity at test time). Columns i > t are future tasks, NaN if a
protocol does not evaluate them. Nothing is rounded. Metrics that need two tasks are NaN for one.

Toolkits use one word for different metrics: *forgetting* is :func:`forgetting_chaudhry` here, as in
most papers; PILOT, PyCIL and mammoth print :func:`forgetting_incl_last`, Avalanche
:func:`forgetting_first`. *Average accuracy* weighs tasks equally; PILOT's is pooled over samples.
The two agree on balanced tasks.

Legend: T tasks; indices in formulas run from 1, and N = T.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError

Floats = npt.NDArray[np.float64]

FORMULAS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy_matrix": "R[t,i]: accuracy on task i after task t, among all classes met so far",
        "last_accuracy": "A_N, where A_t = mean over i <= t of R[t,i]",
        "average_accuracy": "mean over t of A_t",
        "last_accuracy_pooled": "P_N, where P_t = right / all evaluated samples of tasks 1..t",
        "average_accuracy_pooled": "mean over t of P_t",
        "learning_accuracy": "mean over i of R[i,i]",
        "old_accuracy": "mean over i < N of R[N,i]",
        "new_accuracy": "R[N,N]",
        "forgetting": "mean over i < N of (max over i <= t < N of R[t,i]) - R[N,i]; below 0 where "
        "tasks got better (Chaudhry et al. 2018)",
        "forgetting_incl_last": "mean over i < N of (max over i <= t <= N of R[t,i]) - R[N,i]; at "
        "least 0 (PILOT, PyCIL, mammoth)",
        "forgetting_first": "mean over i < N of R[i,i] - R[N,i] (Avalanche)",
        "backward_transfer": "mean over i < N of R[N,i] - R[i,i] (Lopez-Paz and Ranzato 2017)",
        "forward_transfer": "mean over i > 1 of R[i-1,i] - b[i], b before any task was learnt "
        "(Lopez-Paz and Ranzato 2017)",
        "task_incremental_last_accuracy": "mean over i of L[N,i], where L is R evaluated among "
        "the classes of task i alone",
        "task_incremental_average_accuracy": "mean over t of the mean over i <= t of L[t,i]",
        "area_under_curve": "mean over the multiples of eval_every of the accuracy on all classes "
        "met so far, after the first step that reaches the multiple (Koh et al. 2022)",
    }
)
"""Definition of each metric of a result, by name; stored in result files."""


def task_mean(R: Floats) -> Floats:
    """Return A_t (T,): the mean over i ≤ t of R[t, i], each task weighed equally."""
    R = _checked(R)
    T = len(R)
    means: Floats = np.tril(R).sum(axis=1) / np.arange(1, T + 1)
    return means


def pooled(hits: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> Floats:
    """Return P_t (T,): Σ_{i ≤ t} hits[t, i] / Σ_{i ≤ t} counts[i], each sample weighed equally.

    Args:
        hits: int (T, T), correct predictions on task i's samples after task t.
        counts: int (T,), evaluated samples of each task.
    """
    T = len(counts)
    if hits.shape != (T, T):
        raise UsageError(f"hits are of shape {hits.shape} for {T} tasks; expected ({T}, {T})")
    right: Floats = np.tril(hits).sum(axis=1) / np.cumsum(counts)
    return right


def average_accuracy(R: Floats) -> float:
    """Return Ā = (1/N) Σ_t A_t: average incremental accuracy."""
    return float(task_mean(R).mean())


def last_accuracy(R: Floats) -> float:
    """Return A_N: last incremental accuracy."""
    return float(task_mean(R)[-1])


def learning_accuracy(R: Floats) -> float:
    """Return (1/N) Σ_i R[i, i]: accuracy on each task right after learning it."""
    return float(np.diagonal(_checked(R)).mean())


def forgetting_per_task(R: Floats) -> Floats:
    """Return f_i (T − 1,): max over i ≤ t < N of R[t, i], minus R[N, i].

    Chaudhry et al., "Riemannian Walk for Incremental Learning" (arXiv 1801.10112), section 5.
    Accuracy on a task before learning it does not count.
    """
    R = _checked(R)
    return _best(R[:-1]) - R[-1, :-1]


def forgetting_chaudhry(R: Floats) -> float:
    """Return the mean of :func:`forgetting_per_task` over i < N; below 0 if tasks improved."""
    return _mean(forgetting_per_task(R))


def forgetting_incl_last(R: Floats) -> float:
    """Return the mean over i < N of (max over i ≤ t ≤ N of R[t, i]) − R[N, i], at least 0.

    As in PILOT, PyCIL and mammoth, except that PILOT rounds accuracies.
    """
    R = _checked(R)
    return _mean(_best(R) - R[-1, :-1])


def forgetting_first(R: Floats) -> float:
    """Return the mean over i < N of R[i, i] − R[N, i], as in Avalanche."""
    R = _checked(R)
    return _mean(np.diagonal(R)[:-1] - R[-1, :-1])


def backward_transfer(R: Floats) -> float:
    """Return the mean over i < N of R[N, i] − R[i, i], minus :func:`forgetting_first`.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory" (arXiv 1706.08840), equation 2.
    """
    return -forgetting_first(R)


def forward_transfer(R: Floats, b: Floats) -> float:
    """Return the mean over i > 1 of R[i − 1, i] − b[i]; NaN if R lacks columns of future tasks.

    Lopez-Paz and Ranzato (arXiv 1706.08840), equation 3. Meant for domains: in a class-incremental
    stream no class of a future task is known, and the value is meaningless.

    Args:
        R: float64 (T, T).
        b: float64 (T,), accuracy on each task before any training.
    """
    R = _checked(R)
    if b.shape != (len(R),):
        raise UsageError(f"b is of shape {b.shape}; expected ({len(R)},), one number per task")
    return _mean(np.diagonal(R, offset=1) - b[1:])


def area_under(accuracies: Sequence[float] | Floats) -> float:
    """Return A_auc: the mean of accuracies at equal distances in samples; NaN if empty.

    Koh et al. (arXiv 2110.10031), section 4.1: performance at any time.
    """
    return _mean(np.asarray(accuracies, dtype=np.float64))


def summarise(
    R: Floats,
    *,
    hits: npt.NDArray[np.integer] | None = None,
    counts: npt.NDArray[np.integer] | None = None,
    initial: Floats | None = None,
    task_incremental: Floats | None = None,
    curve: Sequence[float] | Floats | None = None,
) -> dict[str, float | None]:
    """Return all metrics of a run by their names in :data:`FORMULAS`, for a result file.

    Args:
        R: float64 (T, T).
        hits: int (T, T), for pooled metrics; requires ``counts``.
        counts: int (T,).
        initial: float64 (T,), accuracy before any task, for forward transfer.
        task_incremental: float64 (T, T), accuracies among the classes of each task alone.
        curve: accuracies of an online stream, one for each multiple of ``eval_every`` samples.

    Returns:
        None for undefined metrics: those that need two tasks if there is one, and forward transfer
        if future tasks were not evaluated. Metrics of arguments not passed are left out.
    """
    found = {
        "last_accuracy": last_accuracy(R),
        "average_accuracy": average_accuracy(R),
        "learning_accuracy": learning_accuracy(R),
        "old_accuracy": _mean(_checked(R)[-1, :-1]),
        "new_accuracy": float(R[-1, -1]),
        "forgetting": forgetting_chaudhry(R),
        "forgetting_incl_last": forgetting_incl_last(R),
        "forgetting_first": forgetting_first(R),
        "backward_transfer": backward_transfer(R),
    }
    if hits is not None and counts is not None:
        by_sample = pooled(hits, counts)
        found["last_accuracy_pooled"] = float(by_sample[-1])
        found["average_accuracy_pooled"] = float(by_sample.mean())
    if initial is not None:
        found["forward_transfer"] = forward_transfer(R, initial)
    if task_incremental is not None:
        found["task_incremental_last_accuracy"] = last_accuracy(task_incremental)
        found["task_incremental_average_accuracy"] = average_accuracy(task_incremental)
    if curve is not None:
        found["area_under_curve"] = area_under(curve)
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def as_lists(R: Floats) -> list[list[float | None]]:
    """Return a matrix as JSON, with None for NaN."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]


def _checked(R: Floats) -> Floats:
    """Return R as float64 (T, T), T ≥ 1."""
    R = np.asarray(R, dtype=np.float64)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not R.size:
        raise UsageError(f"the accuracy matrix is of shape {R.shape}; expected (T, T), T ≥ 1")
    return R


def _best(rows: Floats) -> Floats:
    """Return the highest accuracy (T − 1,) on each task but the last, once learned."""
    num_rows, T = rows.shape
    learnt = np.arange(num_rows)[:, None] >= np.arange(T - 1)
    best: Floats = np.where(learnt, rows[:, : T - 1], -np.inf).max(axis=0, initial=-np.inf)
    return best


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
