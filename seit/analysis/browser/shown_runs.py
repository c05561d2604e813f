"""Runs that pages show: their records, read again for every page, so that curves follow training.

Legend: N samples of the evaluated split.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from seit.errors import SeitError
from seit.numbers import human_bytes, percent
from seit.report import Figure, confusion_matrix, figures, task_matrix
from seit.shards import Store
from seit.training import (
    FINISHED,
    LEARNING,
    REPORT_NAME,
    Curve,
    Metrics,
    Predictions,
    Run,
    group_curves,
    read_confusion,
    read_predictions,
)

_MAX_REPORT = 1 << 26
_MAX_TILES = 8
_OTHERS = (
    Curve("val", "accuracy", "accuracy", "Accuracy on tasks so far", "top-1", 1.0, is_share=True),
    Curve("val", "knn_top1", "k-NN", "k-NN top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "linear_top1", "linear", "Linear probe's top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "loss", "loss", "Validation loss", "loss"),
)
_SHARES = (
    *("top1", "top5", "knn_top1", "linear_top1", "token_accuracy", "data_wait_fraction"),
    *("last_accuracy", "average_accuracy", "forgetting"),
)
_MAIN = ("top1", "last_accuracy", "linear_top1")
"""Figures that distinguish runs in a list; the first that a run has is shown."""
_COUNTS = ("trainable_parameters",)
"""Entries of a ledger that are no bytes."""


class ShownRun:
    """A run's folder.

    Args:
        name: its name on pages.
        path: its folder.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.run = Run(path)

    @property
    def status(self) -> str:
        """Status of the run: started, finished, or damaged."""
        try:
            return str(self.run.info["status"])
        except SeitError:
            return "damaged"

    @property
    def is_finished(self) -> bool:
        """True if its figures no longer change."""
        return self.status in (FINISHED, "damaged")

    @property
    def is_pretraining(self) -> bool:
        """True if it trained an encoder without labels."""
        return self.status != "damaged" and self.run.info.get("kind") == "pretrain"

    def metrics(self) -> Metrics:
        """Return its metrics so far."""
        return self.run.metrics()

    @cached_property
    def _predictions(self) -> Predictions | None:
        return read_predictions(self.run)

    def predictions_of(self, store: Store, split: str) -> Predictions | None:
        """Return the predictions for the samples of a split, if they are of this store."""
        try:
            found = self._predictions if self.is_finished else None
        except SeitError:
            return None
        if found is None or (found.store, found.split) != (store.card.seal, split):
            return None
        if self.run.classes != store.classes:
            return None
        return found if len(found.predicted) == len(store[split]) else None

    def evaluated_split(self, store: Store) -> str | None:
        """Return the split of the store that its predictions are of."""
        found = None if self._predictions is None else self._predictions.split
        if found is None or found not in store or self.predictions_of(store, found) is None:
            return None
        return found

    def tiles(self) -> Markup:
        """Return its most important figures."""
        result: dict[str, Any] = dict(self.run.info.get("result", {}))
        nested = result.get("metrics")
        if isinstance(nested, dict):
            result |= nested
        shown = [
            Figure(name.replace("_", " "), f"{value:.1%}" if name in _SHARES else value)
            for name, value in result.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return figures(shown[:_MAX_TILES])

    def confusion(self, link: Callable[[int, int], str] | None) -> Markup | None:
        """Return the confusion matrix, whose cells link to samples; None if it has none."""
        info = self.run.info
        if info["status"] != FINISHED or self.run.objective != "classify":
            return None
        if self.run.has_label_sets:  # a sample has no one true class
            return None
        counts = read_confusion(self.run)
        if not counts.total:
            return None
        return confusion_matrix(counts, classes=self.run.classes, title="Confusion", link=link)

    def tasks(self) -> Markup | None:
        """Return the accuracy on each task after each task; None unless the run is continual."""
        result = self.run.info.get("result", {})
        matrix = result.get("accuracy_matrix")
        if not isinstance(matrix, list):
            return None
        accuracies = np.array(matrix, dtype=np.float64)
        stream = result.get("stream")
        names = stream.get("tasks") if isinstance(stream, dict) else None
        tasks = [str(name) for name in names or range(1, len(accuracies) + 1)]
        return task_matrix(accuracies, tasks=tasks, title="Accuracy matrix")

    def ledger(self) -> list[tuple[str, str]]:
        """Return what a continual run kept and its size; empty unless the run is continual."""
        ledger = self.run.info.get("result", {}).get("ledger")
        if not isinstance(ledger, dict):
            return []
        return [
            (str(name).replace("_", " "), f"{size:,}" if name in _COUNTS else human_bytes(size))
            for name, size in ledger.items()
            if isinstance(size, int | float) and not isinstance(size, bool)
        ]

    @property
    def main_figure(self) -> str:
        """Its most important figure, such as ``top1 93.4%``; empty if it has none yet."""
        try:
            result = self.run.info.get("result", {})
        except SeitError:
            return ""
        for name in _MAIN:
            value = result.get(name) if isinstance(result, dict) else None
            if isinstance(value, int | float):
                return f"{name.replace('_', ' ')} {percent(value)}"
        return ""

    def report(self) -> bytes | None:
        """Return its `report.html`; None if there is none."""
        path = self.run.path / REPORT_NAME
        if not path.is_file() or path.stat().st_size > _MAX_REPORT:
            return None
        return path.read_bytes()


def charts(runs: dict[str, Metrics]) -> list[Markup]:
    """Return the curves of runs over each other, those that any run has."""
    chosen = [
        curve
        for curve in (*LEARNING, *_OTHERS)
        if any(
            entry["split"] == curve.split and entry.get(curve.key) is not None
            for metrics in runs.values()
            for entry in metrics
        )
    ]
    return group_curves({name: [metrics] for name, metrics in runs.items()}, chosen)
