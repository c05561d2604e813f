"""Report of a run: curves, throughput, confusion, misclassified samples, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from seit.config import flatten, to_mapping
from seit.confusion import Confusion
from seit.errors import SeitError
from seit.report import (
    MANY_CLASSES,
    Figure,
    Section,
    Series,
    confusion_matrix,
    figures,
    image_grid,
    line_chart,
    page,
    say_share,
    table,
    worst_confused,
    write_page,
)
from seit.shards import Store
from seit.training.answers import read_confusion, read_predictions
from seit.training.label_sets import LabelScores, label_sections
from seit.training.origin import origin_sections
from seit.training.run import REPORT_NAME, RUN_NAME, Run

Metrics = Sequence[Mapping[str, Any]]
"""Lines of a run's `metrics.jsonl`."""
_CELL = 192
"""Width in pixels; four pictures fill the width of the page."""
_MAX_CLASSES = 100
"""Most classes with a row of figures."""


@dataclass(frozen=True)
class Curve:
    """Curve of a chart: one metric of one split over the steps.

    The y axis runs from 0 to ``top``, or to the highest value if ``top`` is 0; None fits both ends
    to the values. ``name`` labels a line that has no other name.
    """

    split: str
    key: str
    name: str
    title: str
    y_label: str
    top: float | None = None
    is_share: bool = False


LEARNING = (
    Curve("val", "top1", "top-1", "Validation top-1", "top-1", top=1.0, is_share=True),
    Curve("train", "loss", "loss", "Training loss", "cross-entropy in nats"),
)
THROUGHPUT = (
    Curve(
        "train", "samples_per_second", "samples/s", "Training rate", "samples per second", top=0.0
    ),
    Curve(
        "train",
        "data_wait_fraction",
        "waiting",
        "Waiting for data",
        "share of training time",
        top=1.0,
        is_share=True,
    ),
    Curve("train", "lr", "rate", "Learning rate", "learning rate", top=0.0),
)


def write_run_report(
    run: Run,
    *,
    info: Mapping[str, Any] | None = None,
    store: Store | None = None,
    sections: Sequence[Section] = (),
    scores: LabelScores | None = None,
) -> None:
    """Write `report.html` into a run folder, from ``info`` or its `run.json`.

    With the evaluated ``store`` and the predictions in the folder, the report shows misclassified
    samples. With ``scores``, of several labels per sample, it has the classes' average precision
    instead of confusions. Further ``sections`` follow the result. A run without steps has no
    curves.
    """
    from seit.training.footprint import footprint_sections

    info = run.info if info is None else info
    config = run.own_settings
    result = info["result"]
    counts = read_confusion(run)
    # Of several labels per sample, those of no class are evaluated, but not confused.
    evaluated = max(counts.total, result.get("val_samples") or 0)
    metrics = {"": run.metrics()}
    is_trained = result["steps"] > 0
    top5 = [Figure("top-5", f"{result['top5']:.1%}")] if counts.num_classes > MANY_CLASSES else []
    rates = [
        Figure("training rate", f"{result['samples_per_second']:.0f}/s", "samples per second"),
        Figure("waiting for data", f"{result['data_wait_fraction']:.1%}", "of training time"),
    ]
    accuracy = [Figure("top-1", *say_share(result["top1"], evaluated)), *top5]
    if scores is not None:
        mean = f"{scores.mean_average_precision:.3f}"
        accuracy.insert(0, Figure("mAP", mean, f"mean over {len(run.classes):,} classes"))
    tiles = figures([*accuracy, *(rates if is_trained else ())])
    steps = f", {result['steps']:,} steps of {config.data.batch_size}" if is_trained else ""
    write_report(
        run.path,
        title=f"Run {run.path.name}",
        lead=f"{config.model.name}, {result['parameters']:,} parameters{steps}.",
        sections=[
            Section("Result", tiles, "\n\n".join(info.get("warnings", ()))),
            *sections,
            *footprint_sections(info, origin=str(run.path / RUN_NAME)),
            *origin_sections(info, where=str(run.path / RUN_NAME)),
            *([Section("Learning curves", curves(metrics))] if is_trained else []),
            *(
                label_sections(scores, run.classes)
                if scores is not None
                else [*confusion_sections(counts, run.classes), *_mistake_sections(run, store)]
            ),
            *([Section("Throughput", curves(metrics, THROUGHPUT))] if is_trained else []),
        ],
        settings=flatten(to_mapping(config)),
        environment=info["environment"],
    )


def write_report(
    folder: Path,
    *,
    title: str,
    lead: str,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    settings_text: str = "",
) -> None:
    """Write `report.html` into a folder.

    Args:
        folder: folder of one run or several.
        title: heading.
        lead: a sentence on what was run.
        sections: all sections before the settings.
        settings: settings by dotted name.
        environment: versions and hardware, for the foot of the page.
        settings_text: a remark on the settings.
    """
    rows = [[name, str(value)] for name, value in settings.items()]
    table_of_settings = table(rows, header=["setting", "value"])
    html = page(
        title,
        lead=lead,
        sections=[*sections, Section("Settings", table_of_settings, settings_text)],
        footer=", ".join(f"{key} {value}" for key, value in environment.items()),
    )
    write_page(folder / REPORT_NAME, html)


def curves(
    metrics_by_name: Mapping[str, Metrics], chosen: Sequence[Curve] = LEARNING
) -> list[Markup]:
    """Return a chart per curve, by default validation top-1 and training loss; a line per run."""
    return group_curves({name: [metrics] for name, metrics in metrics_by_name.items()}, chosen)


def group_curves(
    groups: Mapping[str, Sequence[Metrics]], chosen: Sequence[Curve] = LEARNING
) -> list[Markup]:
    """Return a chart for each curve, with the mean line of each group of runs before its runs.

    The mean covers the steps that all runs of a group have logged.
    """
    return [_chart(groups, curve) for curve in chosen]


def _chart(groups: Mapping[str, Sequence[Metrics]], curve: Curve) -> Markup:
    series = [line for name, runs in groups.items() for line in _lines(name, runs, curve)]
    highest = max((value for line in series for value in line.y), default=0.0)
    end = curve.top or 1.1 * float(highest)
    return line_chart(
        series,
        title=curve.title,
        x_label="steps",
        y_label=curve.y_label,
        y_range=(0, end) if curve.top is not None and end > 0 else None,
        y_format="percent" if curve.is_share else "number",
    )


def _lines(name: str, runs: Sequence[Metrics], curve: Curve) -> list[Series]:
    points = [
        {
            entry["step"]: entry[curve.key]
            for entry in metrics
            if entry["split"] == curve.split and entry.get(curve.key) is not None
        }
        for metrics in runs
    ]
    label = name or curve.name
    if len(points) == 1:
        return [Series(label, list(points[0]), list(points[0].values()))]
    faint = [Series(label, list(one), list(one.values()), faint=True) for one in points]
    common = sorted(set.intersection(*map(set, points))) if points else []
    mean = [float(np.mean([one[step] for one in points])) for step in common]
    return [*faint, Series(label, common, mean)]


def confusion_sections(counts: Confusion, classes: tuple[str, ...]) -> list[Section]:
    """Return the confusion matrix (N, N) and its worst pairs; nothing without an evaluation."""
    if not counts.total:
        return []
    rows = [
        [entry.true, entry.predicted, entry.num_images, f"{entry.share:.0%}"]
        for entry in worst_confused(counts, classes=classes)
    ]
    header = ["class", "taken for", "samples", "share of the class"]
    return [
        Section("Confusion", confusion_matrix(counts, classes=classes, title="Confusion")),
        Section("Most often confused", table(rows, header=header)),
        *_class_sections(counts, classes),
    ]


def _class_sections(counts: Confusion, classes: tuple[str, ...]) -> list[Section]:
    """Return figures of the classes, those of the lowest F1 first."""
    order = np.argsort(np.nan_to_num(counts.f1s, nan=2.0), kind="stable")[:_MAX_CLASSES]
    shares = np.stack([counts.precisions, counts.recalls, counts.f1s], axis=1)
    rows = [
        [classes[row], *map(_share, shares[row].tolist()), f"{counts.support[row]:,}"]
        for row in order.tolist()
    ]
    header = ["class", "precision", "recall", "F1", "samples"]
    left = len(classes) - len(rows)
    note = f"The {len(rows)} classes of the lowest F1; `seit eval --out` lists all." if left else ""
    return [Section("Classes", table(rows, header=header), note)]


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _mistake_sections(run: Run, store: Store | None) -> list[Section]:
    """Return samples of the most frequent confusions; nothing without the store or mistakes."""
    if store is None:
        return []
    from seit.training.mistakes import mistaken_pictures

    title = "What was mistaken"
    try:
        predictions = read_predictions(run)
        if predictions is None or predictions.store != store.card.seal:
            return []
        rows = mistaken_pictures(store, predictions, classes=run.classes)
        if not rows:
            return []
        grid = image_grid(rows, title="", cell=_CELL)
    except SeitError as error:
        return [Section(title, [], f"The samples cannot be shown: {error}")]
    is_sound = store.card.tokenizer.modality == "audio"
    seen = "spectrograms, low frequencies at the bottom" if is_sound else "pictures"
    return [
        Section(
            title,
            grid,
            f"Samples of the most frequent confusions, as their tokens decode to {seen}. "
            "The network sees the tokens' vectors, not these.",
        )
    ]
