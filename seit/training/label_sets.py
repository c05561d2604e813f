"""Metrics of several labels per sample: average precision, and figures of classes.

Legend: n samples, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.report import Section, table
from seit.shards import Store

THRESHOLD = 0.5
"""Probability from which a label counts as predicted."""
_MAX_CLASSES = 100
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores and labels of the labeled samples of a split.

    Attributes:
        probabilities: float32 (n, K), 0–1.
        targets: bool (n, K).
    """

    probabilities: npt.NDArray[np.float32]
    targets: npt.NDArray[np.bool_]

    @cached_property
    def average_precisions(self) -> Floats:
        """Average precision of each class: (K,), NaN without a sample of it."""
        columns = zip(self.probabilities.T, self.targets.T, strict=True)
        return np.array([average_precision(scores, found) for scores, found in columns])

    @property
    def mean_average_precision(self) -> float:
        """Mean over the classes that occur, 0–1."""
        found = self.average_precisions
        return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0

    @cached_property
    def _counts(self) -> tuple[Floats, Floats, Floats]:
        """True positives, predicted and true samples of each class: (K,) each."""
        predicted = self.probabilities >= THRESHOLD
        hits = (predicted & self.targets).sum(0)
        return (
            hits.astype(np.float64),
            predicted.sum(0).astype(np.float64),
            self.targets.sum(0).astype(np.float64),
        )

    @property
    def precisions(self) -> Floats:
        """Precision of each class at `THRESHOLD`: (K,), NaN without predictions."""
        hits, predicted, _ = self._counts
        return _ratio(hits, predicted)

    @property
    def recalls(self) -> Floats:
        """Recall of each class at `THRESHOLD`: (K,), NaN without samples."""
        hits, _, true = self._counts
        return _ratio(hits, true)

    @property
    def f1s(self) -> Floats:
        """F1 of each class at `THRESHOLD`: (K,), NaN if it never occurs."""
        hits, predicted, true = self._counts
        return _ratio(2 * hits, predicted + true)

    @property
    def support(self) -> npt.NDArray[np.int64]:
        """Samples of each class: int64 (K,)."""
        return self._counts[2].astype(np.int64)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Samples predicted to have each class: int64 (K,)."""
        return self._counts[1].astype(np.int64)


def average_precision(scores: npt.NDArray[Any], targets: npt.NDArray[np.bool_]) -> float:
    """Return the area under a precision-recall curve without interpolation; NaN without positives.

    Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct scores, from the highest: samples of one score count
    together, as in scikit-learn's ``average_precision_score``.

    Args:
        scores: (n,), any floating point.
        targets: bool (n,).
    """
    total = int(targets.sum())
    if not total:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = np.cumsum(targets[order])[ends]
    precision, gained = hits / (ends + 1), np.diff(hits, prepend=0)
    return float((precision * gained).sum() / total)


def label_sections(scores: LabelScores, classes: Sequence[str]) -> list[Section]:
    """Return the figures of the classes, those of the lowest average precision first."""
    ranked = np.nan_to_num(scores.average_precisions, nan=2.0)
    order = np.argsort(ranked, kind="stable")[:_MAX_CLASSES]
    columns = (scores.average_precisions, scores.precisions, scores.recalls, scores.f1s)
    shares = np.stack(columns, axis=1)
    rows = [
        [classes[row], *map(_share, shares[row].tolist()), f"{scores.support[row]:,}"]
        for row in order.tolist()
    ]
    left = len(classes) - len(rows)
    note = f"Precision, recall and F1 are at a probability of {THRESHOLD:g}."
    if left:
        note += f" The {len(rows)} classes of the lowest AP; `seit eval --out` lists all."
    header = ["class", "AP", "precision", "recall", "F1", "samples"]
    return [Section("Labels", table(rows, header=header), note)]


def refuse_label_sets(store: Any, splits: Sequence[str], *, verb: str, instead: str) -> None:
    """Refuse a store of several labels per sample where one is needed.

    Raises:
        UsageError: one of the splits that exist has such samples.
    """
    if not isinstance(store, Store):
        return
    for name in splits:
        if name in store and store[name].label_sets is not None:
            raise UsageError(
                f"{store.folder} has several labels per sample, and {verb} needs one; {instead}"
            )


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return ratio


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
