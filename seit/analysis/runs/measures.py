"""Figures by which runs are judged, and whether two runs measured them alike.

The settings of a pre-training run define the task of its loss, so two losses may not be comparable.
"""

from collections.abc import Mapping
from typing import Any

CLASSIFY = "classify"
"""Objective of a run with classes."""
CONTINUAL = "continual"
"""Objective of a run that learns classes task by task."""

LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_average_precision": "mAP",
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
"""Figures of runs in table order, and their display names."""
SHARES = (
    "top1",
    "top5",
    "mean_average_precision",
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
"""Settings that determine the learned tasks."""
_PROBES = ("knn_top1", "linear_top1")
_CODES = ("loss", "token_accuracy")
_PROBED = ("data.train_split", "augment.crop_size", "probe.")
"""Settings that probes depend on; a name that ends in a dot stands for its group."""
_SHOWN = ("augment.crop_size", "model.stem")
"""Settings that determine the patches to restore, however they are hidden."""
_HIDDEN = {
    "mtm": ("mtm.mask.",),
    # Evaluation has no tokens of other samples, so alien_* does not matter.
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
    """Return the figures that measure how good a run is, the most important first."""
    if objective == CONTINUAL:
        return _TASKS
    return ("top1",) if objective == CLASSIFY else (*_PROBES, "loss")


def measured_differently(
    figure: str, first: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the differing settings that change the meaning of a figure of two runs.

    Classification figures are comparable if the tasks are the same. For pre-training runs, the
    accuracy of probes depends on the probes, and that of codes, like the loss, on what is hidden.

    Args:
        figure: name of the figure.
        first: settings of a run by dotted names.
        other: settings of another run.

    Returns:
        Dotted names, sorted; empty if the figure means the same.
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
    """Return the kind of task; further pre-training restores the same as masked token modeling."""
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
