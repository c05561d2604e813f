"""Comparison of runs: differences in settings and results, and their significance.

The first run is the reference for the others. A folder of seeds stands for the mean of its runs.
Classifiers are compared by top-1, pre-training runs by probes of their features and by losses.

Legend: N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from seit.analysis.runs.contenders import SEED, Contender, open_contenders
from seit.analysis.runs.measures import CLASSIFY, LABELS, judged_by, measured_differently
from seit.classes import match_classes
from seit.errors import DamagedError
from seit.report import Interval
from seit.training import mcnemar_p, paired_interval, welch_interval


@dataclass(frozen=True)
class Measured:
    """Figure of one contender: the mean, for several runs.

    Attributes:
        value: the figure; None if it was not recorded.
        std: sample standard deviation over the runs (n − 1); None for one run.
        difference: difference from the first contender; None for the first itself.
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
    """Comparison of one figure of a contender with that of the first.

    Attributes:
        name: name of the contender.
        kind: `mcnemar`, the exact paired test on every sample's prediction; `paired`, the interval
            of the mean difference over the same seeds; `welch`, of the difference of means over
            other seeds; `wilson`, a separate interval for each; `none`,
            no test: pre-training runs record no result per sample.
        difference: difference of the figure.
        same_data: whether both were evaluated on the same split of the same store.
        p_value: for `mcnemar`, the probability of a difference this large if neither is better.
        only_first: for `mcnemar`, samples that only the first classified correctly.
        only_this: for `mcnemar`, samples that only this one classified correctly.
        interval: for `paired` and `welch`, 95 % interval of the difference.
        intervals: for `wilson`, 95 % intervals of top-1 of the first and this, None for seeds.
        figure: top1, or for pre-training runs knn_top1, linear_top1 or loss.
        measured_differently: differing settings that change the meaning of the figure.
    """

    name: str
    kind: Literal["mcnemar", "paired", "welch", "wilson", "none"]
    difference: float
    same_data: bool
    p_value: float | None = None
    only_first: int | None = None
    only_this: int | None = None
    interval: Interval | None = None
    intervals: tuple[Interval | None, Interval | None] | None = None
    figure: str = "top1"
    measured_differently: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Comparison of several runs; all tuples are in the order of ``names``.

    Attributes:
        names: names of the contenders.
        runs: number of runs that each stands for.
        settings: differing settings, by dotted names; None if a contender has no such setting.
        results: figures by name.
        classes: recalls of the classes that all share by name, the one that changed most first;
            None if there are none, for runs of several labels a sample, and for pre-training and
            continual runs.
        verdicts: verdicts on each contender but the first: on top-1, or on each figure that both
            pre-training or continual runs have.
        num_classes: largest number of classes of a contender.
    """

    names: tuple[str, ...]
    runs: tuple[int, ...]
    settings: Mapping[str, tuple[Any, ...]]
    results: Mapping[str, tuple[Measured, ...]]
    classes: tuple[ClassRecall, ...] | None
    verdicts: tuple[Verdict, ...]
    num_classes: int


def compare_runs(paths: Sequence[str | Path]) -> Comparison:
    """Compare finished runs, or folders of seeds, with the first of them.

    Raises:
        UsageError: fewer than two are named, one is not a finished run, or their kinds differ.
        DamagedError: a run's files are damaged.
    """
    return compare_contenders(open_contenders(paths))


def compare_contenders(contenders: Sequence[Contender]) -> Comparison:
    """Compare all contenders, which are of one kind, with the first."""
    first, *others = contenders
    return Comparison(
        names=tuple(one.name for one in contenders),
        runs=tuple(len(one.members) for one in contenders),
        settings=_differing_settings(contenders),
        results={
            name: tuple(_measure(one, first, name) for one in contenders)
            for name in LABELS
            if any(one.values(name) for one in contenders)
        },
        classes=_class_recalls(contenders),
        verdicts=tuple(verdict for other in others for verdict in _judge(first, other)),
        num_classes=max(len(one.members[0].classes) for one in contenders),
    )


def _differing_settings(contenders: Sequence[Contender]) -> dict[str, tuple[Any, ...]]:
    settings = [one.settings for one in contenders]
    names = sorted(set().union(*settings))
    if any(one.is_group for one in contenders):
        names = [name for name in names if name != SEED]
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
    members = [run for one in contenders for run in one.members]
    if contenders[0].objective != CLASSIFY or any(one.run.has_label_sets for one in members):
        return None
    lists = [one.members[0].classes for one in contenders]
    common = set(lists[0]).intersection(*lists[1:])
    shared = [name for name in lists[0] if name in common]
    differ = any(names != lists[0] for names in lists)
    if not shared or (differ and any(len(set(names)) < len(names) for names in lists)):
        return None
    table = np.stack(
        [
            one.recalls[match_classes(shared, classes).numbers]
            for one, classes in zip(contenders, lists, strict=True)
        ]
    )
    changes = table - table[0]
    largest = np.where(np.isnan(changes), 0, np.abs(changes)).max(0)
    return tuple(
        ClassRecall(
            shared[number],
            tuple(map(_known, table[:, number])),
            (None, *map(_known, changes[1:, number])),
        )
        for number in np.argsort(-largest, kind="stable")
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _judge(first: Contender, other: Contender) -> list[Verdict]:
    if first.objective == CLASSIFY:
        return [_judge_classifier(first, other)]
    return [
        _judge_plainly(first, other, figure)
        for figure in judged_by(first.objective)
        if first.values(figure) and other.values(figure)
    ]


def _judge_plainly(first: Contender, other: Contender, figure: str) -> Verdict:
    return Verdict(
        other.name,
        "none",
        fmean(other.values(figure)) - fmean(first.values(figure)),
        first.saw_same(other),
        figure=figure,
        measured_differently=measured_differently(figure, first.settings, other.settings),
    )


def _judge_classifier(first: Contender, other: Contender) -> Verdict:
    base, values = first.values("top1"), other.values("top1")
    if not base or not values:
        lacking = other if base else first
        raise DamagedError(f"the result of {lacking.name} has no top1; restore it from a copy")
    difference = fmean(values) - fmean(base)
    same_data = first.saw_same(other)
    if len(base) > 1 and len(values) > 1:
        seeds = first.by_seed("top1"), other.by_seed("top1")
        if same_data and seeds[0].keys() == seeds[1].keys():
            pairs = [(seeds[0][seed], seeds[1][seed]) for seed in seeds[0]]
            interval = paired_interval(*zip(*pairs, strict=True))
            return Verdict(other.name, "paired", difference, same_data, interval=interval)
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
