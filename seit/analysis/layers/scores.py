"""Scores of layers against a target: held-out CCA, explained variance, probes, and their nulls.

Legend: F folds, P nulls.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from typing_extensions import override

from seit.analysis.journal import Sums
from seit.analysis.layers.cca import (
    Whitening,
    fit_cca,
    held_out_correlation,
    training_correlation,
)
from seit.analysis.layers.config import AnalyzeConfig, Method
from seit.analysis.layers.folds import Division
from seit.analysis.layers.gather import LayerSums, reduce
from seit.analysis.layers.moments import Array, Covariances
from seit.analysis.layers.probe import LinearMap
from seit.analysis.layers.reduction import Components
from seit.analysis.layers.targets import Target
from seit.analysis.subjects.base import Subject, depth_of
from seit.errors import DamagedError

_TINY = 1e-300
_CLIPS, _COUNTS = "/clips", "/samples"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """Scores of one layer.

    Attributes:
        name: the layer.
        depth: its relative depth, 0–1.
        score: the figure that was asked for, on held-out folds, as a mean over them.
        std: its standard deviation over the folds.
        null_mean: mean of the same figure for targets that are rearranged within each fold, over
            folds and draws.
        null_std: their standard deviation.
        train: mean canonical correlation on training data, which grows with the features; for
            comparison with the literature. None for probes.
        weighted: held-out PWCCA. None for probes.
        dim: features of the layer that were used.
        variance: share of the layer's variance that its principal components keep; 1 if all
            features were used.
    """

    name: str
    depth: float
    score: float
    std: float
    null_mean: float
    null_std: float
    train: float | None = None
    weighted: float | None = None
    dim: int
    variance: float = 1.0


@dataclass(frozen=True)
class Measured:
    """Sums of a subject's layers with a target, to score.

    Attributes:
        subject: the network with its inputs.
        target: what its layers are compared with.
        sums: sums of each layer.
        division: folds of the clips.
        components: principal components of wide layers.
        config: settings.
        kept: sums of an interrupted second pass.
    """

    subject: Subject
    target: Target
    sums: Mapping[str, LayerSums]
    division: Division
    components: Mapping[str, Components]
    config: AnalyzeConfig
    kept: Sums = field(default_factory=lambda: Sums(None))

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the subject that have sums."""
        return tuple(layer for layer in self.subject.layers if layer in self.sums)

    @property
    def folds(self) -> range:
        """Numbers of the folds."""
        return range(self.division.num_folds)

    @property
    def draws(self) -> range:
        """0 for the target, then the numbers of its rearrangements."""
        return range(self.config.nulls + 1)


class Score(ABC):
    """Figure of a layer against a target.

    Attributes:
        label: description, for titles.
        axis: unit of the figure, for axes.
        is_share: whether it is an accuracy, 0–1.
        needs_types: whether the target must have classes.
    """

    label: str
    axis: str
    is_share = False
    needs_types = False

    @abstractmethod
    def of(self, measured: Measured) -> Iterator[LayerScore]:
        """Yield the scores of the layers, in order."""


class CanonicalScore(Score):
    """Held-out mean canonical correlation.

    Args:
        label: description.
        variance: share of the variance that is kept before; None for all.
    """

    axis = "correlation"

    def __init__(self, label: str, variance: float | None = None) -> None:
        self.label = label
        self._variance = variance

    @override
    def of(self, measured: Measured) -> Iterator[LayerScore]:
        return (self._layer(measured, layer) for layer in measured.layers)

    def _layer(self, measured: Measured, layer: str) -> LayerScore:
        ridge, sums = measured.config.ridge, measured.sums[layer]
        held: list[list[float]] = [[] for _ in measured.draws]
        weighted, train = [], []
        for fold in measured.folds:
            whitening = Whitening.of(sums.part(fold)[0], ridge=ridge, variance=self._variance)
            for draw in measured.draws:
                fit, test = sums.part(fold, draw)
                fitted = fit_cca(fit, whitening=whitening)
                scored = held_out_correlation(fitted, test)
                held[draw].append(scored.mean)
                if not draw:
                    weighted.append(scored.weighted)
                    train.append(training_correlation(fitted).mean)
        return _summary(
            measured,
            layer,
            held,
            train=float(np.mean(train)),
            weighted=float(np.mean(weighted)),
        )


class ExplainedScore(Score):
    """Share of a target's variance that ridge regression explains on held-out folds.

    R² is averaged over the target's features, weighted by their variance.
    """

    label = "share of variance explained, held out"
    axis = "R²"

    @override
    def of(self, measured: Measured) -> Iterator[LayerScore]:
        return (self._layer(measured, layer) for layer in measured.layers)

    def _layer(self, measured: Measured, layer: str) -> LayerScore:
        sums = measured.sums[layer]

        def share(fold: int, draw: int) -> float:
            fit, test = sums.part(fold, draw)
            fitted = LinearMap.ridge(fit, penalty=measured.config.penalty)
            variance = np.diag(test.yy)
            return float(fitted.determination(test) @ variance / max(variance.sum(), _TINY))

        return _summary(measured, layer, _by_draw(measured, share))


class ProbeScore(Score):
    """Held-out accuracy of a linear probe, by a second pass.

    The null is that of probes fitted to rearranged classes.

    Args:
        label: description.
        fit: fits a probe to covariances.
    """

    axis = "accuracy"
    is_share = True
    needs_types = True

    def __init__(self, label: str, fit: Callable[..., LinearMap]) -> None:
        self.label = label
        self._fit = fit

    @override
    def of(self, measured: Measured) -> Iterator[LayerScore]:
        probes = {layer: self._probes(measured, layer) for layer in measured.layers}
        hits = _Hits(measured)
        rest = measured.subject.clips_after(hits.clips)
        with measured.kept.keeping(rest, hits.arrays) as clips:
            for clip in clips:
                fold = int(measured.division.folds[clip.row])
                hits.counts[fold] += measured.target.size(clip.row)
                for layer in measured.layers:
                    samples = measured.target.samples(clip, layer)
                    if samples is None:
                        break
                    x = reduce(samples.x, measured.components.get(layer))
                    truth = samples.y.argmax(1)
                    for draw in measured.draws:
                        guessed = probes[layer][draw][fold].scores(x).argmax(1)
                        hits.right[layer][draw, fold] += (guessed == truth).sum()
                hits.clips += 1
        for layer in measured.layers:
            yield _summary(measured, layer, (hits.right[layer] / hits.counts).tolist())

    def _probes(self, measured: Measured, layer: str) -> list[list[LinearMap]]:
        """Return the probe of each draw and fold."""

        def probe(fold: int, draw: int) -> LinearMap:
            fit: Covariances = measured.sums[layer].part(fold, draw)[0]
            return self._fit(fit, penalty=measured.config.penalty)

        return _by_draw(measured, probe)


class _Hits:
    """Samples that probes classify as they should, in a second pass.

    Args:
        measured: sums of the first pass.

    Attributes:
        clips: number of clips read.
        counts: samples (F,) of each fold.
        right: correct ones (P + 1, F) by layer.

    Raises:
        DamagedError: the kept counts are not of this pass.
    """

    def __init__(self, measured: Measured) -> None:
        folds, kept = len(measured.folds), measured.kept.read()
        self.clips = 0
        self.counts: Array = np.zeros(folds)
        self.right: dict[str, Array] = {
            layer: np.zeros((len(measured.draws), folds)) for layer in measured.layers
        }
        if kept is None:
            return
        expected = self.arrays()
        if any(name not in kept or kept[name].shape != expected[name].shape for name in expected):
            raise DamagedError(
                "the counts of the interrupted analysis are not of these layers; remove its folder "
                "and start again"
            )
        self.clips, self.counts = int(kept[_CLIPS][0]), kept[_COUNTS]
        self.right = {layer: kept[layer] for layer in self.right}

    def arrays(self) -> dict[str, Array]:
        """Return all counts by name, to continue from."""
        clips = np.array([self.clips], dtype=np.float64)
        return {_CLIPS: clips, _COUNTS: self.counts, **self.right}


SCORES: Mapping[Method, Score] = {
    "cca": CanonicalScore("held-out canonical correlation"),
    "svcca": CanonicalScore("held-out canonical correlation of 99 % of the variance", 0.99),
    "r2": ExplainedScore(),
    "ridge": ProbeScore("held-out accuracy of a ridge probe", LinearMap.ridge),
    "lda": ProbeScore("held-out accuracy of an LDA probe", LinearMap.discriminant),
}
"""Scores by the name of the method."""


def _by_draw(measured: Measured, make: Callable[[int, int], T]) -> list[list[T]]:
    """Return ``make(fold, draw)`` of each draw and fold, made fold by fold: sums are shared."""
    of_folds = [[make(fold, draw) for draw in measured.draws] for fold in measured.folds]
    return [list(of_draw) for of_draw in zip(*of_folds, strict=True)]


def _summary(
    measured: Measured,
    layer: str,
    scores: Sequence[Sequence[float]],
    *,
    train: float | None = None,
    weighted: float | None = None,
) -> LayerScore:
    """Summarize the scores of each draw and fold."""
    own, null = scores[0], [value for draw in scores[1:] for value in draw]
    components, sums = measured.components.get(layer), measured.sums[layer]
    dim = len(sums.whole().mean_x)
    sums.release()
    return LayerScore(
        name=layer,
        depth=depth_of(layer, measured.subject.layers),
        score=float(np.mean(own)),
        std=float(np.std(own, ddof=1)),
        null_mean=float(np.mean(null)),
        null_std=float(np.std(null, ddof=1)),
        train=train,
        weighted=weighted,
        dim=dim,
        variance=1.0 if components is None else components.variance,
    )
