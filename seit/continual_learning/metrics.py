"""What a learner has kept and learnt, by every definition in use, each under a name of its own.

Everything comes from the accuracy matrix R, float64 (T, T): R[t, i] is the share of task i's
evaluated samples that is right after task t was learnt, told apart among all classes met up to then
(class-incremental: no task is named at test). Columns i > t are of tasks still to come, NaN where a
protocol does not evaluate them. Nothing is rounded. What needs two tasks is NaN for one.

Toolkits mean different things by one word: *forgetting* is :func:`forgetting_chaudhry` here, as in
most papers; PILOT, PyCIL and mammoth print :func:`forgetting_incl_last`, Avalanche
:func:`forgetting_first`. *Average accuracy* is that of tasks, each counted alike; PILOT's is
pooled over samples. The two are the same on balanced tasks.

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
        "task_incremental_last_accuracy": "mean over i of L[N,i], where L is R told apart among "
        "the classes of task i alone",
        "task_incremental_average_accuracy": "mean over t of the mean over i <= t of L[t,i]",
        "area_under_curve": "mean of the accuracies on all classes met so far, at equal numbers of "
        "samples apart (Koh et al. 2022)",
    }
)
"""What each number of a result is, by its name; result files carry them."""


def task_mean(R: Floats) -> Floats:
    """A_t (T,): the mean over i ≤ t of R[t, i], each task counted alike."""
    R = _checked(R)
    T = len(R)
    means: Floats = np.tril(R).sum(axis=1) / np.arange(1, T + 1)
    return means


def pooled(hits: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> Floats:
    """P_t (T,): Σ_{i ≤ t} hits[t, i] / Σ_{i ≤ t} counts[i], each sample counted alike.

    Args:
        hits: int (T, T), right predictions on task i's samples after task t.
        counts: int (T,), evaluated samples of each task.
    """
    T = len(counts)
    if hits.shape != (T, T):
        raise UsageError(f"hits are of shape {hits.shape} for {T} tasks; expected ({T}, {T})")
    right: Floats = np.tril(hits).sum(axis=1) / np.cumsum(counts)
    return right


def average_accuracy(R: Floats) -> float:
    """Ā = (1/N) Σ_t A_t: average incremental accuracy."""
    return float(task_mean(R).mean())


def last_accuracy(R: Floats) -> float:
    """A_N: last incremental accuracy."""
    return float(task_mean(R)[-1])


def learning_accuracy(R: Floats) -> float:
    """(1/N) Σ_i R[i, i]: how well tasks are learnt, whatever is kept of them."""
    return float(np.diagonal(_checked(R)).mean())


def forgetting_per_task(R: Floats) -> Floats:
    """f_i (T − 1,): max over i ≤ t < N of R[t, i], minus R[N, i].

    Chaudhry et al., "Riemannian Walk for Incremental Learning" (arXiv 1801.10112), section 5. What
    was told of a task before it was learnt does not count as what could be forgotten.
    """
    R = _checked(R)
    return _best(R[:-1]) - R[-1, :-1]


def forgetting_chaudhry(R: Floats) -> float:
    """The mean over i < N of :func:`forgetting_per_task`; below 0 where tasks got better."""
    return _mean(forgetting_per_task(R))


def forgetting_incl_last(R: Floats) -> float:
    """The mean over i < N of (max over i ≤ t ≤ N of R[t, i]) − R[N, i], which is at least 0.

    As PILOT, PyCIL and mammoth have it, but for PILOT's rounding of accuracies.
    """
    R = _checked(R)
    return _mean(_best(R) - R[-1, :-1])


def forgetting_first(R: Floats) -> float:
    """The mean over i < N of R[i, i] − R[N, i], as Avalanche has it."""
    R = _checked(R)
    return _mean(np.diagonal(R)[:-1] - R[-1, :-1])


def backward_transfer(R: Floats) -> float:
    """The mean over i < N of R[N, i] − R[i, i]: minus :func:`forgetting_first`.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory" (arXiv 1706.08840), equation 2.
    """
    return -forgetting_first(R)


def forward_transfer(R: Floats, b: Floats) -> float:
    """The mean over i > 1 of R[i − 1, i] − b[i]; NaN where R has no columns of the future.

    Lopez-Paz and Ranzato (arXiv 1706.08840), equation 3. In a class-incremental stream no class of
    a task is known before it, and this says nothing; it is meant for domains.

    Args:
        R: float64 (T, T).
        b: float64 (T,), accuracy on each task before any was learnt.
    """
    R = _checked(R)
    if b.shape != (len(R),):
        raise UsageError(f"b is of shape {b.shape}; expected ({len(R)},), one number a task")
    return _mean(np.diagonal(R, offset=1) - b[1:])


def area_under(accuracies: Sequence[float] | Floats) -> float:
    """A_auc: the mean of accuracies taken at regular numbers of samples; NaN for none.

    Koh et al. (arXiv 2110.10031), section 4.1: what a learner is worth at any moment.
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
    """All numbers of a run by their names in :data:`FORMULAS`, for a result file.

    Args:
        R: float64 (T, T).
        hits: int (T, T), for the pooled ones; with ``counts``.
        counts: int (T,).
        initial: float64 (T,), accuracy before any task, for forward transfer.
        task_incremental: float64 (T, T), accuracies among the classes of each task alone.
        curve: accuracies of an online stream at regular numbers of samples.

    Returns:
        None stands for what is not defined: all that needs two tasks where there is one, and
        forward transfer where the future was not evaluated. What was not passed is left out.
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
    """A matrix as JSON: None for NaN."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in R]


def _checked(R: Floats) -> Floats:
    """R as float64 (T, T), T ≥ 1."""
    R = np.asarray(R, dtype=np.float64)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or not R.size:
        raise UsageError(f"the accuracy matrix is of shape {R.shape}; expected (T, T), T ≥ 1")
    return R


def _best(rows: Floats) -> Floats:
    """The highest accuracy (T − 1,) on each task but the last, from when it was learnt on."""
    num_rows, T = rows.shape
    learnt = np.arange(num_rows)[:, None] >= np.arange(T - 1)
    best: Floats = np.where(learnt, rows[:, : T - 1], -np.inf).max(axis=0, initial=-np.inf)
    return best


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
