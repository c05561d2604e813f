"""Finding the runs below a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seit.analysis.runs.measures import CONTINUAL
from seit.config import flatten, read_yaml
from seit.documents import as_record, reason_of
from seit.errors import SeitError, UsageError
from seit.training import CONFIG_NAME, RUN_NAME, Run


@dataclass(frozen=True)
class RunSummary:
    """One line about a run.

    Attributes:
        name: its path below the folder that was searched.
        status: started, finished, or damaged where its files cannot be read.
        objective: what it learns, classify, continual or that of a pre-training.
        model: the backbone's name.
        steps: steps done.
        top1: accuracy, 0–1; of an unfinished run the latest, and so with the others. Of a continual
            run that on all tasks so far, each sample counted alike.
        knn_top1: accuracy of the nearest neighbors among a pre-training's features, 0–1.
        linear_top1: accuracy of a linear probe of them, 0–1.
        samples_per_second: training rate.
        date: of the last change to `run.json`, ISO 8601 in UTC.
        reason: why a run is damaged; None for others.
    """

    name: str
    status: str
    objective: str | None = None
    model: str | None = None
    steps: int | None = None
    top1: float | None = None
    knn_top1: float | None = None
    linear_top1: float | None = None
    samples_per_second: float | None = None
    date: str | None = None
    reason: str | None = None


_FIGURES = ("top1", "knn_top1", "linear_top1", "samples_per_second")


def list_runs(folder: str | Path) -> list[RunSummary]:
    """Find all runs at or below ``folder``, by name; links to folders are not followed.

    Raises:
        UsageError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name one that holds runs")
    return [_summarize(path, folder) for path in _find(folder)]


def _find(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if {CONFIG_NAME, RUN_NAME} <= set(files):
            folders.clear()
            yield Path(place)
        folders.sort()


def _summarize(path: Path, folder: Path) -> RunSummary:
    run = Run(path)
    name = str(path.relative_to(folder)) if path != folder else path.resolve().name
    try:
        figures = _figures(run)
        changed = datetime.fromtimestamp((path / RUN_NAME).stat().st_mtime, UTC)
        date = changed.strftime("%Y-%m-%dT%H:%M:%SZ")
        return as_record({"name": name, "date": date, **figures}, RunSummary, origin=str(path))
    except (SeitError, OSError, OverflowError, ValueError) as error:
        return RunSummary(name, "damaged", reason=reason_of(error))


def _figures(run: Run) -> dict[str, Any]:
    """Return the listed facts of a run, their types unchecked."""
    info, settings, objective = run.info, flatten(read_yaml(run.path / CONFIG_NAME)), run.objective
    latest: dict[str, Any] = {}
    for entry in run.metrics():
        latest.update(entry)
    result = info.get("result", {})
    latest.update(result)
    if objective == CONTINUAL:
        metrics = as_record(result.get("metrics", {}), dict[str, Any], origin=str(run.path))
        latest["top1"] = metrics.get("last_accuracy_pooled", latest.get("accuracy"))
    return {
        "status": info["status"],
        "objective": objective,
        "model": settings.get("model.name"),
        "steps": latest.get("steps", latest.get("step")),
        **{name: latest.get(name) for name in _FIGURES},
    }
