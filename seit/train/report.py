"""The report of a run: curves, confusion, worst-confused classes, settings."""

from typing import Any

import numpy as np
from markupsafe import Markup

from seit.report import (
    Figure,
    Section,
    Series,
    confusion_matrix,
    figures,
    line_chart,
    page,
    table,
    worst_confused,
    write_page,
)
from seit.settings import flatten, to_mapping
from seit.train.run import REPORT_NAME, Run


def write_run_report(run: Run) -> None:
    """Write `report.html` of a finished run into its folder."""
    info = run.info
    result, environment = info["result"], info["environment"]
    counts = np.array(info["confusion"])
    evaluated = int(counts.sum())
    tiles = figures(
        [
            Figure("top-1", f"{result['top1']:.1%}", f"of {evaluated} validation samples"),
            Figure("top-5", f"{result['top5']:.1%}"),
            Figure("training rate", f"{result['samples_per_second']:.0f}/s", "samples per second"),
            Figure("waiting for data", f"{result['data_wait_fraction']:.1%}", "of training time"),
        ]
    )
    settings = [[name, str(value)] for name, value in flatten(to_mapping(run.config)).items()]
    html = page(
        f"Run {run.path.name}",
        lead=f"{run.config.model.name}, {result['parameters']:,} parameters, "
        f"{result['steps']:,} steps of {run.config.data.batch_size}.",
        sections=[
            Section("Result", tiles),
            Section("Learning curves", curves({"": run.metrics()})),
            *confusion_sections(counts, run.classes),
            Section("Settings", table(settings, header=["setting", "value"])),
        ],
        footer=", ".join(f"{key} {value}" for key, value in environment.items()),
    )
    write_page(run.path / REPORT_NAME, html)


def curves(metrics_by_name: dict[str, list[dict[str, Any]]]) -> list[Markup]:
    """Charts of validation top-1 and training loss over the steps, one line a run."""
    charts = []
    for split, key, title, y_label in (
        ("val", "top1", "Validation top-1", "top-1"),
        ("train", "loss", "Training loss", "cross-entropy in nats"),
    ):
        series = []
        for name, metrics in metrics_by_name.items():
            entries = [entry for entry in metrics if entry["split"] == split and key in entry]
            steps = [entry["step"] for entry in entries]
            series.append(Series(name or key, steps, [entry[key] for entry in entries]))
        charts.append(
            line_chart(
                series,
                title=title,
                x_label="steps",
                y_label=y_label,
                y_range=(0, 1) if key == "top1" else None,
                y_format="percent" if key == "top1" else "number",
            )
        )
    return charts


def confusion_sections(
    counts: "np.typing.NDArray[np.int64]", classes: tuple[str, ...]
) -> list[Section]:
    """The confusion matrix (N, N) and its worst pairs; nothing where none was evaluated."""
    if not counts.sum():
        return []
    rows = [
        [entry.true, entry.predicted, entry.num_images, f"{entry.share:.0%}"]
        for entry in worst_confused(counts, classes=classes)
    ]
    header = ["class", "taken for", "samples", "share of the class"]
    return [
        Section("Confusion", confusion_matrix(counts, classes=classes, title="Confusion")),
        Section("Most often confused", table(rows, header=header)),
    ]
