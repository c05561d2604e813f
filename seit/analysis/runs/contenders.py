"""Contenders of a comparison: finished runs, and folders of seeds.

Legend: N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import starmap
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.analysis.runs.measures import CLASSIFY, CONTINUAL
from seit.config import flatten, read_yaml
from seit.confusion import Confusion
from seit.errors import DamagedError, UsageError
from seit.report import Interval, wilson_interval
from seit.training import (
    CONFIG_NAME,
    SEEDS_NAME,
    Predictions,
    Run,
    folder_of,
    read_confusion,
    read_origins,
    read_predictions,
    read_seeds,
)

SEED = "run.seed"
_SPLIT = "data.val_split"
_METHOD = "method"
"""Text among the figures of a compressed run."""
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class FinishedRun:
    """Results of a finished run.

    Attributes:
        run: folder of the run.
        objective: objective of the run.
        settings: settings as written, by dotted names, and the source of its weights.
        result: figures by name, without unknown ones.
        store: seal of its store.
        classes: names of the N classes.
        confusion: confusion of its classes; empty unless the run is a classifier's.
    """

    run: Run
    objective: str
    settings: Mapping[str, Any]
    result: Mapping[str, float]
    store: str
    classes: tuple[str, ...]
    confusion: Confusion

    @classmethod
    def open(cls, path: Path) -> "FinishedRun":
        """Open a run's folder.

        Raises:
            UsageError: there is no run, or it has not finished.
            DamagedError: its files are damaged.
        """
        run = Run.open(path)
        if not run.kind.of_tokens:
            raise UsageError(
                f"{path} is a run of `seit {run.command}`; compare tokenizers with "
                "`seit tokenizer eval`"
            )
        info, objective = run.info, run.objective
        if info.get("status") != "finished":
            raise UsageError(
                f"the run {path} has not finished; resume it with `seit {run.command} … --resume`"
            )
        try:
            classes = tuple(info["identity"]["classes"])
            confusion = Confusion.of_labels(_NONE, _NONE, len(classes))
            if objective == CLASSIFY:
                confusion = read_confusion(run)
                figures = {
                    name: one
                    for name, one in info["result"].items()
                    if name != _METHOD and not isinstance(one, dict) and one is not None
                }
            else:
                if objective == CONTINUAL:
                    info["result"] = _of_continual(info["result"])
                figures = {name: one for name, one in info["result"].items() if one is not None}
            result = {name: float(value) for name, value in figures.items()}
            store = str(info["identity"]["store"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedError(
                f"{path}/run.json is damaged ({error!r}); restore it from a copy"
            ) from error
        settings = flatten(read_yaml(path / CONFIG_NAME))
        origins = read_origins(info, where=f"{path}/run.json")
        settings |= {key: one.summary for key, one in origins.items()}
        return cls(run, objective, settings, result, store, classes, confusion)

    @property
    def split(self) -> str:
        """Evaluated split."""
        return str(self.settings.get(_SPLIT, "val"))

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval of top-1; None if nothing was evaluated."""
        total = max(self.confusion.total, int(self.result.get("val_samples", 0)))
        return wilson_interval(self.confusion.right, total) if total else None

    @cached_property
    def predictions(self) -> Predictions | None:
        """Predicted class of each sample, if recorded."""
        return read_predictions(self.run)


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: a run, or the runs of several seeds."""

    name: str
    members: tuple[FinishedRun, ...]
    is_group: bool

    @property
    def objective(self) -> str:
        """Objective of its runs."""
        return self.members[0].objective

    @property
    def settings(self) -> dict[str, Any]:
        """Settings by dotted names, without the seed for a group."""
        settings = dict(self.members[0].settings)
        if self.is_group:
            settings.pop(SEED, None)
        return settings

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """Recall of each class over all members: float64 (N,), NaN for one without samples."""
        return reduce(add, (member.confusion for member in self.members)).recalls

    def values(self, figure: str) -> list[float]:
        """Return a figure of all members that have it."""
        return [one.result[figure] for one in self.members if figure in one.result]

    def by_seed(self, figure: str) -> dict[str, float]:
        """Return a figure of all members that have it, by seed."""
        return {
            str(one.settings.get(SEED)): one.result[figure]
            for one in self.members
            if figure in one.result
        }

    def saw_same(self, other: "Contender") -> bool:
        """Return True if both were evaluated on the same split of the same store."""
        mine, theirs = self.members[0], other.members[0]
        return (mine.store, mine.split) == (theirs.store, theirs.split)


def open_contenders(paths: Sequence[str | Path]) -> list[Contender]:
    """Open runs and folders of seeds.

    Raises:
        UsageError: fewer than two are named, one is not a finished run, or only some have classes.
        DamagedError: a run's files are damaged.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} runs are named; a comparison needs at least two")
    folders = [Path(path) for path in paths]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError("the same run is named twice; name different ones")
    contenders = list(starmap(_open, zip(names, folders, strict=True)))
    _check_kinds(contenders)
    return contenders


def _check_kinds(contenders: Sequence[Contender]) -> None:
    first = contenders[0]
    other = next((one for one in contenders if _kind(one) != _kind(first)), None)
    if other is not None:
        raise UsageError(
            f"{first.name} is {_kind(first)} and {other.name} {_kind(other)}; compare runs of one "
            "kind, as the classifiers that `seit train … --init-from` makes of pre-training runs"
        )


def _kind(contender: Contender) -> str:
    kinds = {CLASSIFY: "a classifier's run", CONTINUAL: "a continual run"}
    return kinds.get(contender.objective, "a pre-training run")


def _of_continual(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a continual run in one mapping."""
    others = ("steps", "seconds", "samples_per_second")
    return {
        **result["metrics"],
        **{name: result[name] for name in others},
        "parameters": result["trained_parameters"],
    }


def _open(name: str, folder: Path) -> Contender:
    seeds = read_seeds(folder)
    if seeds is None:
        return Contender(name, (FinishedRun.open(folder),), is_group=False)
    if seeds["status"] != "finished":
        raise UsageError(
            f"the seeds at {folder} have not all finished; resume them with "
            "`seit train … --seeds … --resume`"
        )
    members = tuple(FinishedRun.open(folder_of(folder, run["seed"])) for run in seeds["runs"])
    if not members or len({(one.objective, one.classes) for one in members}) > 1:
        raise DamagedError(f"{folder / SEEDS_NAME} names runs that do not belong together")
    return Contender(name, members, is_group=True)
