"""Search for the runs below a folder."""

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
from seit.locks import RUN_LOCK_NAME, is_locked
from seit.training import CONFIG_NAME, FAILURE_NAME, RUN_NAME, Run


@dataclass(frozen=True)
class RunSummary:
    """One-line summary of a run.

    Attributes:
        name: path below the searched folder.
        status: finished, running, failed, interrupted, or damaged if its files cannot be read;
            started if the file system does not say whether a process works on it.
        objective: classify, continual or a pre-training objective.
        model: name of the backbone.
        steps: steps done.
        top1: accuracy, 0–1, over all tasks so far for a continual run, each sample counted alike.
            This and the other figures are the latest ones of an unfinished run.
        knn_top1: nearest-neighbor accuracy on a pre-training run's features, 0–1.
        linear_top1: accuracy of a linear probe on them, 0–1.
        samples_per_second: training rate.
        date: last change of `run.json`, ISO 8601 in UTC.
        reason: reason for a damaged run; None for others.
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
    """Find all runs at or below ``folder``, by name, without following links to folders.

    Raises:
        UsageError: the folder does not exist.
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


def _status(run: Run, recorded: str) -> str:
    """Return the status of a run; of one that has not finished, by its lock."""
    if recorded != "started":
        return recorded
    try:
        if is_locked(run.path / RUN_LOCK_NAME):
            return "running"
    except OSError:
        return recorded
    return "failed" if (run.path / FAILURE_NAME).is_file() else "interrupted"


def _figures(run: Run) -> dict[str, Any]:
    """Return the listed facts of a run, with unchecked types."""
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
        "status": _status(run, info["status"]),
        "objective": objective,
        "model": settings.get("model.name"),
        "steps": latest.get("steps", latest.get("step")),
        **{name: latest.get(name) for name in _FIGURES},
    }
