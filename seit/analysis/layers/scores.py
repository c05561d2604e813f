"""Scores of layers against a target: held-out CCA, explained variance, probes, and their nulls.

Legend: F folds, P nulls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seit.analysis.layers.cca import fit_cca, held_out_correlation, training_correlation
from seit.analysis.layers.gather import Division, LayerSums, reduce
from seit.analysis.layers.probe import LinearMap
from seit.analysis.layers.reduction import Components
from seit.analysis.layers.targets import Target
from seit.analysis.subjects.base import Subject, depth_of

Probe = Literal["ridge", "lda"]


@dataclass(frozen=True, kw_only=True)
class LayerScore:
    """Scores of one layer.

    Attributes:
        name: the layer.
        depth: its relative depth, 0–1.
        score: the figure that was asked for, on held-out folds, as a mean over them.
        std: its standard deviation over the folds.
        null_mean: mean of the same figure for rearranged targets, over folds and draws.
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


def cca_scores(
    sums: Mapping[str, LayerSums],
    division: Division,
    *,
    layers: Sequence[str],
    components: Mapping[str, Components],
    num_nulls: int,
    ridge: float,
    variance: float | None,
) -> list[LayerScore]:
    """Return the held-out mean canonical correlation of each layer."""
    found = []
    for layer in layers:
        one = sums[layer]
        held, weighted, train, null = [], [], [], []
        for fold in range(division.num_folds):
            fit, test = one.part(fold)
            fitted = fit_cca(fit, ridge=ridge, variance=variance)
            scored = held_out_correlation(fitted, test)
            held.append(scored.mean)
            weighted.append(scored.weighted)
            train.append(training_correlation(fitted).mean)
            for draw in range(1, num_nulls + 1):
                fit, test = one.part(fold, draw)
                shuffled = fit_cca(fit, ridge=ridge, variance=variance)
                null.append(held_out_correlation(shuffled, test).mean)
        found.append(
            _summary(
                layer,
                layers,
                held,
                null,
                train=float(np.mean(train)),
                weighted=float(np.mean(weighted)),
                dim=len(fit.mean_x),
                components=components.get(layer),
            )
        )
    return found


def determination_scores(
    sums: Mapping[str, LayerSums],
    division: Division,
    *,
    layers: Sequence[str],
    components: Mapping[str, Components],
    num_nulls: int,
    penalty: float,
) -> list[LayerScore]:
    """Return the share of a target's variance that ridge regression explains on held-out folds.

    R² is averaged over the target's features, weighted by their variance.
    """
    found = []
    for layer in layers:
        scores: list[list[float]] = [[] for _ in range(num_nulls + 1)]
        for draw in range(num_nulls + 1):
            for fold in range(division.num_folds):
                fit, test = sums[layer].part(fold, draw)
                shares = LinearMap.ridge(fit, penalty=penalty).determination(test)
                variance = np.diag(test.yy)
                scores[draw].append(float(shares @ variance / max(variance.sum(), 1e-300)))
        null = [value for draw in scores[1:] for value in draw]
        found.append(
            _summary(
                layer,
                layers,
                scores[0],
                null,
                dim=len(fit.mean_x),
                components=components.get(layer),
            )
        )
    return found


def probe_scores(
    subject: Subject,
    target: Target,
    sums: Mapping[str, LayerSums],
    division: Division,
    *,
    layers: Sequence[str],
    components: Mapping[str, Components],
    probe: Probe,
    penalty: float,
    num_nulls: int,
) -> list[LayerScore]:
    """Return the held-out accuracy of a linear probe on each layer, by a second pass.

    The null is that of probes fitted to rearranged classes.
    """
    fit_map = LinearMap.ridge if probe == "ridge" else LinearMap.discriminant
    draws, folds = num_nulls + 1, range(division.num_folds)
    maps = {
        layer: [
            [fit_map(sums[layer].part(fold, draw)[0], penalty=penalty) for draw in range(draws)]
            for fold in folds
        ]
        for layer in layers
    }
    right = {layer: np.zeros((division.num_folds, draws)) for layer in layers}
    counts = np.zeros(division.num_folds)
    for clip in subject.clips():
        fold = int(division.folds[clip.row])
        for layer in layers:
            samples = target.samples(clip, layer)
            if samples is None:
                break
            x = reduce(samples.x, components.get(layer))
            truth = samples.y.argmax(1)
            for draw, fitted in enumerate(maps[layer][fold]):
                right[layer][fold, draw] += (fitted.scores(x).argmax(1) == truth).sum()
            if layer == layers[0]:
                counts[fold] += len(truth)
    found = []
    for layer in layers:
        shares = right[layer] / counts[:, None]
        found.append(
            _summary(
                layer,
                layers,
                shares[:, 0].tolist(),
                shares[:, 1:].ravel().tolist(),
                dim=len(maps[layer][0][0].weight),
                components=components.get(layer),
            )
        )
    return found


def _summary(
    layer: str,
    layers: Sequence[str],
    scores: Sequence[float],
    null: Sequence[float],
    *,
    dim: int,
    components: Components | None,
    train: float | None = None,
    weighted: float | None = None,
) -> LayerScore:
    return LayerScore(
        name=layer,
        depth=depth_of(layer, layers),
        score=float(np.mean(scores)),
        std=float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
        null_mean=float(np.mean(null)) if null else 0.0,
        null_std=float(np.std(null, ddof=1)) if len(null) > 1 else 0.0,
        train=train,
        weighted=weighted,
        dim=dim,
        variance=1.0 if components is None else components.variance,
    )
