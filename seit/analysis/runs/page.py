"""Report of a comparison of runs."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from seit.analysis.runs.compare import Comparison, Measured, Verdict
from seit.analysis.runs.contenders import Contender
from seit.analysis.runs.measures import CLASSIFY, LABELS, SHARES, judged_by
from seit.numbers import minus, number
from seit.report import (
    MANY_CLASSES,
    Figure,
    Interval,
    Section,
    figures,
    page,
    table,
    write_page,
)
from seit.training import LEARNING, THROUGHPUT, Curve, Metrics, group_curves

MOST_CLASSES = 20
"""Number of classes shown, those that changed most."""
_OTHER_DATA = " They were evaluated on different stores or splits."
_OTHERS = (
    Curve(
        "val", "accuracy", "accuracy", "Accuracy on tasks so far", "top-1", top=1.0, is_share=True
    ),
    Curve("val", "knn_top1", "k-NN", "k-NN top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "linear_top1", "linear", "Linear probe's top-1", "top-1", top=1.0, is_share=True),
    Curve("val", "effective_rank", "rank", "Effective rank", "directions", top=0.0),
    Curve("val", "loss", "loss", "Validation loss", "mean over hidden tokens"),
    Curve("train", "loss", "loss", "Training loss", "all parts of it"),
)


def write_comparison(path: Path, comparison: Comparison, contenders: Sequence[Contender]) -> None:
    """Write a comparison of ``contenders`` as an HTML page to ``path``."""
    first, *others = comparison.names
    groups = {one.name: [run.run.metrics() for run in one.members] for one in contenders}
    learning: Sequence[Curve] = LEARNING
    if contenders[0].objective != CLASSIFY:
        learning = [curve for curve in _OTHERS if _is_known(curve, groups)]
    sentences = "\n\n".join(say_verdicts(comparison))
    faint = "Faint: the seeds one by one." if max(comparison.runs) > 1 else ""
    html = page(
        " and ".join([", ".join([first, *others[:-1]]), others[-1]]),
        lead=f"Compared with {first}.",
        sections=[
            Section("Result", figures(_tiles(comparison, contenders[0].objective)), sentences),
            Section("All figures", table(result_rows(comparison), header=header(comparison))),
            _settings(comparison),
            Section("Learning curves", group_curves(groups, learning), faint),
            *_class_sections(comparison),
            Section("Throughput", group_curves(groups, THROUGHPUT)),
        ],
    )
    write_page(path, html)


def header(comparison: Comparison, label: str = "") -> list[str]:
    """Return the columns of a table of results: each run, then the differences from the first."""
    return [label, *comparison.names, *(f"Δ {name}" for name in comparison.names[1:])]


def result_rows(comparison: Comparison) -> list[list[str]]:
    """Return every figure of each run, then the differences from the first."""
    return [
        [
            LABELS[figure],
            *(show(figure, one.value) + _plus_minus(figure, one) for one in measured),
            *(show(figure, one.difference, signed=True) for one in measured[1:]),
        ]
        for figure, measured in comparison.results.items()
        if figure != "top5" or comparison.num_classes > MANY_CLASSES
    ]


def class_rows(comparison: Comparison, most: int = MOST_CLASSES) -> list[list[str]]:
    """Return each run's recall of the classes that changed most, then the differences."""
    return [
        [
            one.name,
            *(show("top1", value) for value in one.recalls),
            *(show("top1", value, signed=True) for value in one.differences[1:]),
        ]
        for one in (comparison.classes or ())[:most]
    ]


def setting_rows(comparison: Comparison) -> list[list[str]]:
    """Return the settings that differ, with the values of each run."""
    return [
        [name, *("–" if value is None else str(value) for value in values)]
        for name, values in comparison.settings.items()
    ]


def say_verdicts(comparison: Comparison) -> list[str]:
    """Return a sentence or two that compare each run with the first."""
    first = comparison.names[0]
    groups = [list(group) for _, group in groupby(comparison.verdicts, lambda one: one.name)]
    return [
        _say_differences(first, verdicts)
        if verdicts[0].kind == "none"
        else _say_verdict(first, verdicts[0])
        for verdicts in groups
    ]


def _say_differences(first: str, verdicts: Sequence[Verdict]) -> str:
    """Return the differences of several figures of unknown significance as text."""
    parts = []
    for verdict in verdicts:
        part = f"{_change(verdict)} of {LABELS[verdict.figure]}"
        if verdict.measured_differently:
            part += f" (not the same measure: see {', '.join(verdict.measured_differently)})"
        parts.append(part)
    text = f"{verdicts[0].name} against {first}, one run each: {', '.join(parts)}."
    return text + ("" if verdicts[0].same_data else _OTHER_DATA)


def _say_verdict(first: str, verdict: Verdict) -> str:
    text = f"{verdict.name} against {first}: {_change(verdict)} of {LABELS[verdict.figure]}"
    if verdict.kind == "mcnemar":
        assert verdict.p_value is not None
        text += (
            f"; samples right in {verdict.name} alone: {verdict.only_this:,}, in {first} alone: "
            f"{verdict.only_first:,}; p = {verdict.p_value:.2g} by McNemar's exact test."
        )
    elif verdict.interval is not None:
        low, high = _points(verdict.interval.low), _points(verdict.interval.high)
        test = "paired by seed" if verdict.kind == "paired" else "Welch, over seeds"
        text += f", 95 % interval {low} to {high} ({test})."
    else:
        assert verdict.intervals is not None
        parts = [
            f"{name} {_span(interval)}"
            for name, interval in zip((first, verdict.name), verdict.intervals, strict=True)
            if interval is not None
        ]
        text += f"; 95 % intervals of each alone: {', '.join(parts)} (Wilson)." if parts else "."
    return text + ("" if verdict.same_data else _OTHER_DATA)


def _change(verdict: Verdict) -> str:
    text = show(verdict.figure, verdict.difference, signed=True)
    return f"{text} points" if verdict.figure in SHARES else text


def show(figure: str, value: float | None, *, signed: bool = False) -> str:
    """Format a figure, or its difference with a sign; differences of shares are in points."""
    if value is None:
        return "–"
    if signed and figure in SHARES:
        return _points(value)
    text = f"{value:.2%}" if figure in SHARES else number(value)
    return f"+{text}" if signed and value > 0 else minus(text)


def spread_note(figure: str, measured: Measured) -> str:
    """Return the deviation over seeds and the difference from the first as text."""
    parts = []
    if measured.std is not None:
        parts.append(f"± {show(figure, measured.std)} over seeds")
    if measured.difference is not None:
        unit = " points" if figure in SHARES else ""
        parts.append(show(figure, measured.difference, signed=True) + unit)
    return ", ".join(parts)


def _tiles(comparison: Comparison, objective: str) -> list[Figure]:
    """Return tiles of the most important figure; the effective rank if no such figure is known."""
    known = (name for name in judged_by(objective) if name in comparison.results)
    figure = next(known, "effective_rank")
    return [
        Figure(
            f"{LABELS[figure]} of {name}",
            show(figure, measured.value),
            spread_note(figure, measured),
        )
        for name, measured in zip(comparison.names, comparison.results[figure], strict=True)
    ]


def _is_known(curve: Curve, groups: Mapping[str, Sequence[Metrics]]) -> bool:
    """Return True if any run recorded the curve's figure."""
    return any(
        entry["split"] == curve.split and entry.get(curve.key) is not None
        for runs in groups.values()
        for metrics in runs
        for entry in metrics
    )


def _plus_minus(figure: str, measured: Measured) -> str:
    return f" ± {show(figure, measured.std)}" if measured.std else ""


def _points(share: float) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    text = minus(f"{100 * share:.2f}")
    return f"+{text}" if share > 0 else text


def _span(interval: Interval) -> str:
    return f"{interval.low:.2%} to {interval.high:.2%}"


def _settings(comparison: Comparison) -> Section:
    title = "Settings that differ"
    rows = setting_rows(comparison)
    if not rows:
        return Section(title, [], "None.")
    return Section(title, table(rows, header=["setting", *comparison.names]))


def _class_sections(comparison: Comparison) -> list[Section]:
    rows = class_rows(comparison)
    if not rows:
        return []
    total = len(comparison.classes or ())
    text = f"The {len(rows)} of {total:,} classes that changed most." if total > len(rows) else ""
    return [Section("Recall by class", table(rows, header=header(comparison, "class")), text)]
