"""Rows of the table: what each method costs and keeps, with the spread over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from seit.compression.compare.pareto import pareto_front
from seit.compression.footprint.clock import Latency
from seit.compression.result import CompressResult
from seit.outcomes import Outcome
from seit.training import Predictions, Run, SeedsResult, Spread, mcnemar_p, read_predictions

SOURCE = "source"
"""Name of the row of the run that was compressed."""
FRONTS: Mapping[str, str] = {"bytes": "bytes", "latency": "latency_ms", "flops": "flops"}
"""Costs with a front, and the fields that hold them."""
_DIGITS = 9
"""Decimals of an accuracy that count: means of equal values differ by rounding."""


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """Row of the table: a method, or the run that was compressed.

    Attributes:
        method: name of the method.
        bytes: size of the deployed file.
        latency_ms: median processor time of the largest measured batch on one thread, which is its
            time on an idle machine; None without.
        flops: operations of a forward pass of one sample; None if they are unknown.
        top1: accuracy on the validation split, 0–1.
        agreement: share of samples with the same predicted class as before, 0–1.
        seconds: duration of a run.
        difference: top-1 minus that of the source, over the same samples.
        difference_se: standard error of the difference, paired by sample and averaged over seeds;
            None if the predictions are not of the same samples.
        p_value: McNemar's exact two-sided p, the largest over the seeds; None likewise.
        fronts: names of the fronts that it is on.
        results: result of each seed's run.
    """

    method: str
    bytes: Spread
    latency_ms: Spread | None
    flops: Spread | None
    top1: Spread
    agreement: Spread
    seconds: Spread
    difference: float
    difference_se: float | None
    p_value: float | None
    fronts: tuple[str, ...] = ()
    results: Mapping[int, CompressResult]

    @property
    def is_shown(self) -> bool | None:
        """True if the difference exceeds twice its standard error; None without one."""
        error = self.difference_se
        return None if error is None else abs(self.difference) > 2 * error

    def cost(self, front: str) -> float | None:
        """Return the mean cost of a front; None if it is unknown."""
        spread: Spread | None = getattr(self, FRONTS[front])
        return None if spread is None else spread.mean


@dataclass(frozen=True, kw_only=True, repr=False)
class MethodsComparison(Outcome):
    """Results of the methods.

    Attributes:
        source: the run that was compressed.
        rows: one per method, in the given order.
        skipped: methods that do not fit the run, and why.
        fronts: names of the rows on each front, cheapest first.
    """

    source: MethodRow
    rows: tuple[MethodRow, ...]
    skipped: Mapping[str, str]
    fronts: Mapping[str, tuple[str, ...]]


def method_row(
    method: str, found: SeedsResult[CompressResult], *, source: Run, runs: Sequence[Path]
) -> MethodRow:
    """Return the row of a method, with a run per seed."""
    results = list(found.results.values())
    difference = found.top1.mean - fmean(one.top1_before for one in results)
    paired = _paired(source, runs)
    flops = [float(one.flops) for one in results if one.flops is not None]
    times = [largest_ms(one.latency_ms) for one in results if one.latency_ms]
    return MethodRow(
        method=method,
        bytes=Spread.of([float(one.bytes) for one in results]),
        latency_ms=Spread.of(times) if times else None,
        flops=Spread.of(flops) if flops else None,
        top1=found.top1,
        agreement=Spread.of([one.agreement for one in results]),
        seconds=Spread.of([one.seconds for one in results]),
        difference=difference,
        difference_se=None if paired is None else _standard_error(*paired),
        p_value=None if paired is None else max(_p_value(*paired)),
        results=found.results,
    )


def largest_ms(latency: Mapping[str, Latency]) -> float:
    """Return the median processor time of the largest batch, in milliseconds."""
    return latency[max(latency, key=int)].cpu_p50


def with_fronts(rows: Sequence[MethodRow]) -> tuple[list[MethodRow], dict[str, tuple[str, ...]]]:
    """Return the rows with the fronts that they are on, and the names on each front."""
    fronts: dict[str, tuple[str, ...]] = {}
    for front in FRONTS:
        costs = {row.method: cost for row in rows if (cost := row.cost(front)) is not None}
        known = [row for row in rows if row.method in costs]
        qualities = [round(row.top1.mean, _DIGITS) for row in known]
        kept = pareto_front(list(costs.values()), qualities)
        names = [row.method for row, is_kept in zip(known, kept, strict=True) if is_kept]
        fronts[front] = tuple(sorted(names, key=lambda name: costs[name]))
    marked = [
        replace(row, fronts=tuple(front for front, names in fronts.items() if row.method in names))
        for row in rows
    ]
    return marked, fronts


def _paired(
    source: Run, runs: Sequence[Path]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """Return what was right before (n,), and after in each run (R, n); None if not comparable."""
    before = read_predictions(source)
    after = [read_predictions(Run.open(path)) for path in runs]
    if before is None or any(one is None or not one.is_of_same_samples(before) for one in after):
        return None
    return before.right, np.stack([one.right for one in after if isinstance(one, Predictions)])


def _standard_error(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> float:
    changes = after.mean(0) - before
    return float(changes.std(ddof=1) / math.sqrt(len(changes))) if len(changes) > 1 else math.inf


def _p_value(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> list[float]:
    return [mcnemar_p(int((before & ~one).sum()), int((one & ~before).sum())) for one in after]
