"""Chance, false discoveries and noise ceilings of brain scores.

Legend: R runs, V samples of a run, D features, M targets, P draws, S subjects.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from seit.analysis.brain.encoding import correlations
from seit.analysis.brain.responses import Array
from seit.errors import UsageError

_SIGNS = 1 << 22
"""Signs drawn at a time."""


def shifted(features: Sequence[Array], *, least: int, random: np.random.Generator) -> list[Array]:
    """Shift the features (V, D) of each run around in a circle, by ``least`` samples or more.

    This keeps how slowly they change, which a shuffle of time points destroys: for slow signals a
    shuffled null is five times too narrow.

    Raises:
        UsageError: a run is too short to shift.
    """
    moved = []
    for run in features:
        if len(run) <= 2 * least:
            raise UsageError(
                f"a run of {len(run)} samples cannot be shifted by {least} in both directions; "
                "pass longer runs"
            )
        moved.append(np.roll(run, int(random.integers(least, len(run) - least + 1)), axis=0))
    return moved


def null_scores(
    score: Callable[[Sequence[Array]], Array],
    features: Sequence[Array],
    *,
    draws: int,
    least: int,
    seed: int,
) -> Array:
    """Return scores (P, M) of features that were shifted against the responses.

    Args:
        score: returns the scores (M,) of features of all runs.
        features: (V, D) of each run.
        draws: P.
        least: least shift, in samples.
        seed: seed of the shifts.
    """
    random = np.random.default_rng(seed)
    found: Array = np.stack(
        [score(shifted(features, least=least, random=random)) for _ in range(draws)]
    )
    return found


def p_values(scores: Array, null: Array) -> Array:
    """Return the probability (M,) of such a score (M,) by chance, given null scores (P, M)."""
    above = (null >= scores).sum(0)
    values: Array = (above + 1) / (len(null) + 1)
    return values


def discoveries(p: Array, *, rate: float = 0.05) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return the targets (M,) found at a rate of false discoveries.

    By the procedure of Benjamini and Hochberg (1995), given the p-values (M,).
    """
    order = np.argsort(p)
    allowed = rate * np.arange(1, len(p) + 1) / len(p)
    passed = np.flatnonzero(p[order] <= allowed)
    found = np.zeros(len(p), dtype=np.bool_)
    if len(passed):
        found[order[: passed[-1] + 1]] = True
    return found


def least_share(draws: int, *, rate: float = 0.05) -> float:
    """Return the share of targets that must pass for any to be found; above 1 if none can be.

    A p-value is at least 1 / (draws + 1), which the procedure of :func:`discoveries` allows only
    to so many targets at once.

    Args:
        draws: null scores of a target.
        rate: rate of false discoveries.
    """
    return 1 / (rate * (draws + 1))


def pairwise_ceiling(subjects: Sequence[Sequence[Array]]) -> Array:
    """Return the highest correlation (M,) that any model of one subject can reach.

    The root of the mean correlation of pairs of subjects with the same stimuli, who share their
    response up to noise. As scores are, correlations are those within a tested stretch: levels
    that differ from stretch to stretch would raise them.

    Args:
        subjects: responses (V, M) of S ≥ 2 subjects in each tested stretch.

    Raises:
        UsageError: there are fewer than two.
    """
    pairs = combinations(_several(subjects), 2)
    mean = np.mean([_within(one, other) for one, other in pairs], axis=0)
    ceiling: Array = np.sqrt(np.clip(mean, 0, None))
    return ceiling


def left_out_ceiling(subjects: Sequence[Sequence[Array]]) -> Array:
    """Return the correlation (M,) of each subject with the mean of the others, averaged.

    A lower bound of what a model of one subject can reach; it grows with the number of subjects.
    Arguments and errors as in :func:`pairwise_ceiling`.
    """
    _several(subjects)
    found = []
    for number, own in enumerate(subjects):
        others = [one for place, one in enumerate(subjects) if place != number]
        rest = [np.mean(same, axis=0) for same in zip(*others, strict=True)]
        found.append(_within(own, rest))
    mean: Array = np.mean(found, axis=0)
    return mean


def _within(first: Sequence[Array], second: Sequence[Array]) -> Array:
    """Return the mean over stretches of their correlations (M,)."""
    mean: Array = np.mean([correlations(a, b) for a, b in zip(first, second, strict=True)], axis=0)
    return mean


def _several(subjects: Sequence[Sequence[Array]]) -> Sequence[Sequence[Array]]:
    if len(subjects) < 2:
        raise UsageError("a noise ceiling needs at least two subjects with the same stimuli")
    return subjects


def sign_flip(differences: Array, *, draws: int = 10_000, seed: int = 0) -> float:
    """Return the probability of such a mean difference if signs were chance, two-sided.

    Args:
        differences: paired differences (S,), one a subject.
        draws: random sign patterns; all are used if there are fewer.
        seed: seed of the patterns.
    """
    count = len(differences)
    if count < 2:
        raise UsageError("a paired comparison needs at least two subjects")
    if 1 << count <= draws:
        signs = 1 - 2 * ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1)
        means = np.abs((signs * differences).mean(1))
        return float((means >= abs(differences.mean()) - 1e-12).mean())
    random, above = np.random.default_rng(seed), 0
    rows = max(1, _SIGNS // count)
    for start in range(0, draws, rows):
        size = (min(rows, draws - start), count)
        signs = 2 * random.integers(2, size=size, dtype=np.int8) - 1
        means = np.abs(signs @ differences) / count
        above += int((means >= abs(differences.mean()) - 1e-12).sum())
    return (above + 1) / (draws + 1)
