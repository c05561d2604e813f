"""Which figures a run is judged by, and whether two runs measured them alike.

A pre-training run sets itself the task that its loss is of, so two losses may not compare.
"""

from collections.abc import Mapping
from typing import Any

CLASSIFY = "classify"
"""The objective of a run that has classes."""
CONTINUAL = "continual"
"""The objective of a run that learns them task by task."""

LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "last_accuracy": "last accuracy, mean of tasks",
    "average_accuracy": "average accuracy",
    "task_incremental_last_accuracy": "last accuracy within tasks",
    "forgetting": "forgetting",
    "knn_top1": "k-NN top-1",
    "linear_top1": "linear-probe top-1",
    "loss": "loss",
    "token_accuracy": "masked-token accuracy",
    "feature_std": "spread of features",
    "effective_rank": "effective rank",
    "steps": "steps",
    "parameters": "parameters",
    "samples_per_second": "samples/s",
    "data_wait_fraction": "waiting for data",
    "seconds": "seconds",
}
"""Figures of runs in the order of their tables, and their names there."""
SHARES = (
    "top1",
    "top5",
    "last_accuracy",
    "average_accuracy",
    "task_incremental_last_accuracy",
    "forgetting",
    "knn_top1",
    "linear_top1",
    "token_accuracy",
    "data_wait_fraction",
)
"""Figures that are shares, 0–1."""
_TASKS = ("last_accuracy", "average_accuracy", "forgetting")
_STREAM = ("stream.", "data.train_split", "data.val_split", "data.fraction")
"""Settings that say which tasks were learned."""
_PROBES = ("knn_top1", "linear_top1")
_CODES = ("loss", "token_accuracy")
_PROBED = ("data.train_split", "augment.crop_size", "probe.")
"""Settings that probes depend on; a name that ends in a dot stands for its group."""
_SHOWN = ("augment.crop_size", "model.stem")
"""Settings that say which patches are to be restored, whatever hides them."""
_HIDDEN = {
    "mtm": ("mtm.mask.",),
    # Another sample's tokens stand nowhere in evaluation, so alien_* does not matter.
    "sit": (
        "sit.recon",
        "sit.corruption.kind",
        "sit.corruption.share",
        "sit.corruption.block_max",
        "sit.corruption.fill",
    ),
}
"""Settings of how evaluation hides tokens, by objective."""


def judged_by(objective: str) -> tuple[str, ...]:
    """The names of the figures that say how good a run is, the first that counts most."""
    if objective == CONTINUAL:
        return _TASKS
    return ("top1",) if objective == CLASSIFY else (*_PROBES, "loss")


def measured_differently(
    figure: str, first: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[str, ...]:
    """Settings that differ and by which a figure of two runs means something else.

    All runs classify alike, if they learned the same tasks; of pre-training runs the accuracy of
    probes depends on the probes, and that of codes, like their loss, on what is hidden.

    Args:
        figure: its name.
        first: settings of a run by dotted names.
        other: those of another.

    Returns:
        Dotted names, sorted; empty where both mean the same.
    """
    if figure in _TASKS:
        return _differing(_STREAM, first, other)
    if "objective" not in first or "objective" not in other:
        return ()
    if figure in _PROBES:
        return _differing(_PROBED, first, other)
    if figure not in _CODES:
        return ()
    tasks = [_task(str(settings["objective"])) for settings in (first, other)]
    if tasks[0] != tasks[1]:
        return ("objective",)
    return _differing((*_SHOWN, *_HIDDEN.get(tasks[0], ())), first, other)


def _task(objective: str) -> str:
    """Return the kind of task; further pre-training restores what masked token modeling does."""
    return "mtm" if objective == "further" else objective


def _differing(
    chosen: tuple[str, ...], first: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[str, ...]:
    groups = tuple(name for name in chosen if name.endswith("."))
    return tuple(
        name
        for name in sorted({*first, *other})
        if (name in chosen or name.startswith(groups)) and first.get(name) != other.get(name)
    )
