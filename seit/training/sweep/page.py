"""Page of a sweep: the trials, and their scores against each setting."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from seit.config import flatten, to_mapping
from seit.numbers import human_bytes
from seit.report import (
    Bar,
    Family,
    Figure,
    Mark,
    Section,
    bar_chart,
    figures,
    say_share,
    scatter_chart,
    table,
)
from seit.training.config import TrainConfig
from seit.training.footprint import operations
from seit.training.report import write_report
from seit.training.run import Run
from seit.training.sweep.result import SweepResult, TrialResult

_FEW = 2
"""Most distinct numbers that are shown as bars instead of on a scale."""


def write_sweep_page(out: Path, config: TrainConfig, result: SweepResult) -> None:
    """Write `report.html` of a sweep."""
    judged = [one for one in result.trials if one.last is not None and one.last.top1 is not None]
    winner = Run.open(out / f"trial-{result.best:03d}")
    tiles = figures(
        [
            Figure("top-1", *say_share(result.top1, result.val_samples)),
            Figure(
                "top-1 on held-out samples",
                f"{result.dev_top1:.2%}",
                f"of {result.dev_samples:,} training samples; the highest of many",
            ),
            Figure("trials", len(judged), f"of {len(result.trials)} draws"),
            Figure("steps", f"{result.steps:,}", f"in {result.seconds:.0f} s"),
        ]
    )
    write_report(
        out,
        title=f"Sweep {out.name}",
        lead=f"Trial {result.best} wins: "
        + ", ".join(f"{name} {_shown(value)}" for name, value in result.settings.items())
        + ".",
        sections=[
            Section("Result", tiles),
            Section(
                "Settings and scores",
                [_chart(name, judged, result.best) for name in result.settings],
                "Scores are those of each trial's last rung, so trials that were stopped early "
                "score lower for that alone.",
            ),
            Section("Trials", _table(result)),
        ],
        settings=flatten(to_mapping(config)),
        environment=winner.info["environment"],
    )


def _table(result: SweepResult) -> Markup:
    names = list(result.settings)
    rows = [
        [
            one.number,
            *(_shown(one.settings[name]) for name in names),
            *_scores(one, result.rungs),
            None if one.bytes is None else human_bytes(one.bytes),
            operations(one.flops),
            one.reason or ("winner" if one.number == result.best else one.status),
        ]
        for one in sorted(result.trials, key=_rank)
    ]
    rungs = [f"top-1 at {mark:,}" for mark in result.rungs]
    return table(rows, header=["trial", *names, *rungs, "bytes", "FLOPs", "status"])


def _rank(trial: TrialResult) -> tuple[int, float]:
    last = trial.last
    return -trial.steps, -(last.top1 or 0.0) if last is not None else 0.0


def _scores(trial: TrialResult, rungs: Sequence[int]) -> list[str]:
    found = [trial.judgments.get(str(mark)) for mark in rungs]
    return ["–" if one is None or one.top1 is None else f"{one.top1:.2%}" for one in found]


def _chart(name: str, trials: Sequence[TrialResult], best: int) -> Markup:
    """Return a scatter of positive numbers, or the best score of each value as bars."""
    points = [(one, one.settings[name], one.last.top1) for one in trials if one.last is not None]
    values = {value for _, value, _ in points if not isinstance(value, list)}
    is_scale = len(values) > _FEW and all(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        for value in values
    )
    if is_scale:
        marks = [
            Mark(str(one.number), float(value), top1 or 0.0, is_marked=one.number == best)
            for one, value, top1 in points
        ]
        return scatter_chart(
            [Family("trials", marks, is_joined=False)],
            title=name,
            x_label=name,
            y_label="top-1",
            y_format="percent",
        )
    highest: dict[str, float] = {}
    for _, value, top1 in points:
        highest[_shown(value)] = max(highest.get(_shown(value), 0.0), top1 or 0.0)
    bars = [Bar(text, score) for text, score in sorted(highest.items())]
    return bar_chart(bars, title=f"{name}, best of each value", unit_label="top-1")


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
