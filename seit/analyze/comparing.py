"""Comparing runs: what was set differently, what came of it, and whether that may be chance.

The first run is what the others are compared with. A folder of seeds stands for the mean of its
runs.

Legend: N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.analyze.significance import Interval, mcnemar_p, welch_interval, wilson_interval
from seit.errors import DamagedError, UsageError
from seit.settings import flatten, read_yaml
from seit.train.predictions import Predictions, read_predictions
from seit.train.run import CONFIG_NAME, REPORT_NAME, Run
from seit.train.seeds import SEEDS_NAME, read_seeds

FIGURES = (
    "top1",
    "top5",
    "loss",
    "steps",
    "parameters",
    "samples_per_second",
    "data_wait_fraction",
    "seconds",
)
_SEED = "run.seed"
_SPLIT = "data.val_split"


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left behind.

    Attributes:
        run: its folder.
        settings: by dotted names, as they were written.
        result: figures by name.
        store: the seal of its store.
        classes: names of the N classes.
        confusion: int64 (N, N), rows are labels, columns predictions.
    """

    run: Run
    settings: Mapping[str, Any]
    result: Mapping[str, float]
    store: str
    classes: tuple[str, ...]
    confusion: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> "FinishedRun":
        """Open a run's folder.

        Raises:
            UsageError: there is no run, it has not finished, or it is a pre-training.
            DamagedError: its files are not what was written.
        """
        run = Run.open(path)
        info = run.info
        if run.objective != "classify":
            raise UsageError(
                f"{path} is a pre-training run, which has no classes to compare by; look at "
                f"{run.path / REPORT_NAME}, or compare the runs that start from it"
            )
        if info.get("status") != "finished":
            raise UsageError(
                f"the run {path} has not finished; go on with it by `seit train … --resume`"
            )
        try:
            classes = tuple(info["identity"]["classes"])
            confusion = np.array(info["confusion"], np.int64).reshape(len(classes), len(classes))
            result = {name: float(value) for name, value in info["result"].items()}
            store = str(info["identity"]["store"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedError(
                f"{path}/run.json is not what was written ({error!r}); restore it from a copy"
            ) from error
        settings = flatten(read_yaml(path / CONFIG_NAME))
        return cls(run, settings, result, store, classes, confusion)

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return str(self.settings.get(_SPLIT, "val"))

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval of top-1; None where nothing was evaluated."""
        total = int(self.confusion.sum())
        return wilson_interval(int(np.trace(self.confusion)), total) if total else None

    @cached_property
    def predictions(self) -> Predictions | None:
        """What it took each sample for, where it keeps that."""
        return read_predictions(self.run)


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: a run, or the runs of several seeds."""

    name: str
    members: tuple[FinishedRun, ...]
    is_group: bool

    @property
    def settings(self) -> dict[str, Any]:
        """By dotted names; the seed of a group is left out."""
        settings = dict(self.members[0].settings)
        if self.is_group:
            settings.pop(_SEED, None)
        return settings

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """Recall of each class over all members: float64 (N,), NaN for one without samples."""
        confusion = np.sum([member.confusion for member in self.members], axis=0)
        totals = confusion.sum(1)
        recalls: npt.NDArray[np.float64] = np.where(
            totals > 0, np.diagonal(confusion) / np.maximum(totals, 1), np.nan
        )
        return recalls

    def values(self, figure: str) -> list[float]:
        """A figure of all members that have it."""
        return [one.result[figure] for one in self.members if figure in one.result]

    def saw_same(self, other: "Contender") -> bool:
        """Whether both were evaluated on the same split of the same store."""
        mine, theirs = self.members[0], other.members[0]
        return (mine.store, mine.split) == (theirs.store, theirs.split)


@dataclass(frozen=True)
class Measured:
    """A figure of one contender: the mean, where it is of several runs.

    Attributes:
        value: the figure, None where it was not noted down.
        std: over the runs, with n − 1 below it; None for one run.
        difference: from the first contender; None for that itself.
    """

    value: float | None
    std: float | None
    difference: float | None


@dataclass(frozen=True)
class ClassRecall:
    """Recall of one class by each contender, 0–1, and the differences from the first."""

    name: str
    recalls: tuple[float | None, ...]
    differences: tuple[float | None, ...]


@dataclass(frozen=True)
class Verdict:
    """How a contender's top-1 compares with that of the first.

    Attributes:
        name: of the contender.
        kind: `mcnemar`, the exact paired test on every sample's prediction; `welch`, the interval
            of the difference of means over seeds; `wilson`, an interval of each alone.
        difference: of top-1.
        same_data: whether both were evaluated on the same split of the same store.
        p_value: of `mcnemar`: how probable a difference this large is if neither is better.
        only_first: of `mcnemar`: samples that only the first named rightly.
        only_this: of `mcnemar`: samples that only this one named rightly.
        interval: of `welch`: 95 % of the difference.
        intervals: of `wilson`: 95 % of the top-1 of the first and of this, None for seeds.
    """

    name: str
    kind: Literal["mcnemar", "welch", "wilson"]
    difference: float
    same_data: bool
    p_value: float | None = None
    only_first: int | None = None
    only_this: int | None = None
    interval: Interval | None = None
    intervals: tuple[Interval | None, Interval | None] | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; all tuples are in the order of ``names``.

    Attributes:
        names: of the contenders.
        runs: how many runs each stands for.
        settings: those that differ, by dotted names; None where one has no such setting.
        results: figures by name.
        classes: recalls, the class that changed most first; None where the classes differ.
        verdicts: of each contender but the first.
    """

    names: tuple[str, ...]
    runs: tuple[int, ...]
    settings: Mapping[str, tuple[Any, ...]]
    results: Mapping[str, tuple[Measured, ...]]
    classes: tuple[ClassRecall, ...] | None
    verdicts: tuple[Verdict, ...]


def compare_runs(paths: Sequence[str | Path]) -> Comparison:
    """Compare finished runs, or folders of seeds, with the first of them.

    Raises:
        UsageError: fewer than two are named, or one is no finished run.
        DamagedError: a run's files are not what was written.
    """
    return compare_contenders(open_contenders(paths))


def open_contenders(paths: Sequence[str | Path]) -> list[Contender]:
    """Open runs and folders of seeds.

    Raises:
        UsageError: fewer than two are named, or one is no finished run.
        DamagedError: a run's files are not what was written.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} runs are named; a comparison takes at least two")
    folders = [Path(path) for path in paths]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError("the same run is named twice; name different ones")
    return list(starmap(_open, zip(names, folders, strict=True)))


def compare_contenders(contenders: Sequence[Contender]) -> Comparison:
    """Compare all with the first."""
    first, *others = contenders
    return Comparison(
        names=tuple(one.name for one in contenders),
        runs=tuple(len(one.members) for one in contenders),
        settings=_differing_settings(contenders),
        results={
            name: tuple(_measure(one, first, name) for one in contenders)
            for name in FIGURES
            if any(one.values(name) for one in contenders)
        },
        classes=_class_recalls(contenders),
        verdicts=tuple(_judge(first, other) for other in others),
    )


def _open(name: str, folder: Path) -> Contender:
    seeds = read_seeds(folder)
    if seeds is None:
        return Contender(name, (FinishedRun.open(folder),), is_group=False)
    if seeds["status"] != "finished":
        raise UsageError(
            f"the seeds at {folder} have not all finished; go on with them by "
            "`seit train … --seeds … --resume`"
        )
    try:
        places = [folder / str(run["folder"]) for run in seeds["runs"]]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{folder / SEEDS_NAME} names no runs; restore it") from error
    members = tuple(FinishedRun.open(place) for place in places)
    if not members or len({member.classes for member in members}) > 1:
        raise DamagedError(f"{folder / SEEDS_NAME} names runs that do not belong together")
    return Contender(name, members, is_group=True)


def _differing_settings(contenders: Sequence[Contender]) -> dict[str, tuple[Any, ...]]:
    settings = [one.settings for one in contenders]
    names = sorted(set().union(*settings))
    if any(one.is_group for one in contenders):
        names = [name for name in names if name != _SEED]
    rows = {name: tuple(one.get(name) for one in settings) for name in names}
    return {name: values for name, values in rows.items() if any(v != values[0] for v in values)}


def _measure(contender: Contender, first: Contender, figure: str) -> Measured:
    values, base = contender.values(figure), first.values(figure)
    if not values:
        return Measured(None, None, None)
    std = stdev(values) if len(values) > 1 else None
    is_compared = contender is not first and bool(base)
    return Measured(fmean(values), std, fmean(values) - fmean(base) if is_compared else None)


def _class_recalls(contenders: Sequence[Contender]) -> tuple[ClassRecall, ...] | None:
    classes = contenders[0].members[0].classes
    if any(one.members[0].classes != classes for one in contenders):
        return None
    table = np.stack([one.recalls for one in contenders])
    changes = table - table[0]
    largest = np.where(np.isnan(changes), 0, np.abs(changes)).max(0)
    return tuple(
        ClassRecall(
            classes[number],
            tuple(map(_known, table[:, number])),
            (None, *map(_known, changes[1:, number])),
        )
        for number in np.argsort(-largest, kind="stable")
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _judge(first: Contender, other: Contender) -> Verdict:
    base, values = first.values("top1"), other.values("top1")
    if not base or not values:
        lacking = other if base else first
        raise DamagedError(f"the result of {lacking.name} has no top1; restore it from a copy")
    difference = fmean(values) - fmean(base)
    same_data = first.saw_same(other)
    if len(base) > 1 and len(values) > 1:
        interval = welch_interval(base, values)
        return Verdict(other.name, "welch", difference, same_data, interval=interval)
    mine, theirs = first.members[0], other.members[0]
    if len(base) == len(values) == 1:
        a, b = mine.predictions, theirs.predictions
        if a is not None and b is not None and a.is_of_same_samples(b):
            only_first = int((a.right & ~b.right).sum())
            only_this = int((b.right & ~a.right).sum())
            return Verdict(
                other.name,
                "mcnemar",
                difference,
                same_data=True,
                p_value=mcnemar_p(only_first, only_this),
                only_first=only_first,
                only_this=only_this,
            )
    intervals = (
        mine.interval if len(base) == 1 else None,
        theirs.interval if len(values) == 1 else None,
    )
    return Verdict(other.name, "wilson", difference, same_data, intervals=intervals)
