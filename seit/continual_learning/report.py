"""Report of a continual run: accuracy over tasks, forgetting, and memory in bytes.

Legend: T tasks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from seit.config import flatten
from seit.continual_learning.metrics import FORMULAS, Floats, forgetting_per_task
from seit.numbers import human_bytes
from seit.report import (
    Bar,
    Figure,
    Section,
    Series,
    bar_chart,
    figures,
    line_chart,
    table,
    task_matrix,
)
from seit.training import write_report

_TILES = (
    ("last_accuracy", "last accuracy", "mean over tasks"),
    ("average_accuracy", "average accuracy", "mean over all moments"),
    ("forgetting", "forgetting", "points lost since the best; Chaudhry"),
    ("area_under_curve", "area under the curve", "accuracy at any moment"),
)
_SUMS = {
    "exemplar_bytes": "exemplars together",
    "total_memory_bytes": "kept between tasks, besides the backbone",
}
"""Entries of a ledger that are sums of others."""
_MAX_BARS = 30
"""Above this many tasks, forgetting is drawn as a line."""


def write_continual_report(
    folder: Path,
    *,
    title: str,
    lead: str,
    result: Mapping[str, Any],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    warnings: Sequence[str] = (),
    origins: Sequence[Section] = (),
) -> None:
    """Write `report.html` of a finished run.

    Args:
        folder: folder of the run.
        title: heading.
        lead: one sentence about the run.
        result: contents of a result file. ``accuracy_matrix``: T lists of T accuracies 0–1 or None.
            ``accuracies``: A_t by expert, such as ``ensemble``. ``metrics``: numbers by their names
            in ``FORMULAS``. ``ledger``: ``Ledger.describe``. ``stream``: ``Stream.describe``.
            Optional: ``pooled``, like ``accuracies``; ``curve`` of an online stream, with
            ``samples`` and ``accuracy``.
        settings: settings of the run, nested or not.
        environment: versions and hardware.
        warnings: reasons to distrust the figures.
        origins: sections about the origin of the backbone.
    """
    R = np.array(result["accuracy_matrix"], dtype=np.float64)
    tasks = list(result["stream"]["tasks"])
    sections = [
        Section("Result", figures(_tiles(result))),
        *([Section("Warnings", [], "\n\n".join(warnings))] if warnings else []),
        *origins,
        Section("Accuracy", _curves(result)),
        Section(
            "Every task after every task",
            task_matrix(R, tasks=tasks, title="Accuracy matrix"),
            "Each sample is classified among all classes met so far. Down a column one sees a task "
            "being forgotten.",
        ),
        *_forgetting(R, tasks),
        Section("Bytes", _bytes(result["ledger"]), _BYTES_TEXT),
        Section("All numbers", _numbers(result["metrics"])),
        _stream_section(result["stream"]),
    ]
    write_report(
        folder,
        title=title,
        lead=lead,
        sections=sections,
        settings=flatten(settings),
        environment=environment,
    )


_BYTES_TEXT = (
    "What is kept from one task to the next, besides the frozen backbone. The tokenizer counts "
    "where exemplars are pictures; to classify pictures that are no store's it is needed anyway. "
    "The optimizer's moments are there while a task is trained only."
)


def _tiles(result: Mapping[str, Any]) -> list[Figure]:
    metrics = result["metrics"]
    tiles = [
        Figure(label, f"{metrics[name]:.1%}", note)
        for name, label, note in _TILES
        if metrics.get(name) is not None
    ]
    kept = human_bytes(result["ledger"]["total_memory_bytes"])
    return [*tiles, Figure("kept between tasks", kept, "besides the backbone")]


def _curves(result: Mapping[str, Any]) -> list[Markup]:
    """Plot each expert's accuracy over tasks and, for an online stream, over samples."""
    charts = [
        line_chart(
            [
                Series(name, np.arange(1, len(values) + 1), np.array(values, dtype=np.float64))
                for name, values in result[key].items()
            ],
            title=title,
            x_label="tasks learnt",
            y_label="accuracy",
            y_range=(0, 1),
            y_format="percent",
        )
        for key, title in (
            ("accuracies", "Accuracy on all tasks so far, each task counted alike"),
            ("pooled", "Accuracy on all tasks so far, each sample counted alike"),
        )
        if result.get(key)
    ]
    if curve := result.get("curve"):
        charts.append(
            line_chart(
                [Series("accuracy", curve["samples"], curve["accuracy"])],
                title="Accuracy at any moment, on all classes met so far",
                x_label="samples seen",
                y_label="accuracy",
                y_range=(0, 1),
                y_format="percent",
            )
        )
    return charts


def _forgetting(R: Floats, tasks: Sequence[str]) -> list[Section]:
    """Plot the forgetting of each task but the last; empty for a single task."""
    if len(R) < 2:
        return []
    lost = 100 * forgetting_per_task(R)
    title, unit = "Forgetting of each task", "percentage points"
    if len(lost) > _MAX_BARS:
        line = Series("forgotten", np.arange(1, len(lost) + 1), lost)
        chart = line_chart([line], title=title, x_label="task", y_label=unit)
    else:
        bars = [
            Bar(tasks[i], max(0.0, points), f"{R[i, i]:.1%} when learnt, {R[-1, i]:.1%} last")
            for i, points in enumerate(lost.tolist())
        ]
        chart = bar_chart(bars, title=title, unit_label=unit)
    return [
        Section(
            "Forgetting",
            chart,
            "The best accuracy on a task before the last one was learnt, minus the accuracy after "
            "it; below 0, or without a bar, for tasks that got better.",
        )
    ]


def _bytes(ledger: Mapping[str, Any]) -> list[Markup]:
    parts = {
        name: int(value)
        for name, value in ledger.items()
        if name.endswith("_bytes") and name not in _SUMS
    }
    bars = [Bar(_words(name), value) for name, value in parts.items() if value]
    rows = [[_words(name), value] for name, value in parts.items()]
    rows += [[words, int(ledger[name])] for name, words in _SUMS.items() if name in ledger]
    if "trainable_parameters" in ledger:
        rows.append(["trainable parameters (a number)", int(ledger["trainable_parameters"])])
    return [
        bar_chart(bars, title="What takes how much", unit_label="bytes", log=True),
        table(rows, header=["what", "bytes"]),
    ]


def _numbers(metrics: Mapping[str, float | None]) -> Markup:
    rows = [[name, value, FORMULAS.get(name, "")] for name, value in metrics.items()]
    return table(
        rows,
        header=["name", "value", "formula"],
        caption="R[t,i] is the accuracy on task i after task t; N is the last task. A dash stands "
        "for what is not defined here.",
    )


def _stream_section(stream: Mapping[str, Any]) -> Section:
    rows = [
        [name, *numbers]
        for name, *numbers in zip(
            stream["tasks"],
            stream["increments"],
            stream["samples"],
            stream["val_samples"],
            strict=True,
        )
    ]
    header = ["task", "new classes", "samples", "evaluated samples"]
    order = ", ".join(map(str, stream["class_order"]))
    return Section(
        "Stream",
        table(rows, header=header, caption=f"Classes in the order {order}."),
        f"Kind: {stream['kind']}; fingerprint {stream['fingerprint']}. Two results can be compared "
        "where their fingerprints agree.",
    )


def _words(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ").replace("pet", "PET")
