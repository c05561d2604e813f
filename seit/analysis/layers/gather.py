"""One pass over a subject's clips: sums of every layer with a target, for each fold.

Legend: n samples, D features of a layer, K features of a target, F folds, P nulls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.moments import Covariances, Moments
from seit.analysis.layers.reduction import Components
from seit.analysis.layers.targets import Floats, Samples, Target
from seit.analysis.subjects.base import Subject
from seit.errors import UsageError
from seit.progress import Count

_HELD = 128
"""Samples of a fold that are rearranged among themselves for the nulls."""


@dataclass(frozen=True)
class Division:
    """Division of a subject's clips into folds.

    Attributes:
        folds: fold of each clip, int64 (n,).
        num_folds: F.
    """

    folds: npt.NDArray[np.int64]
    num_folds: int


class LayerSums:
    """Sums of one layer with the target, for each fold.

    Args:
        dim: D.
        target_dim: K.
        num_folds: F.
        num_nulls: P.
        seed: seed of the nulls.
    """

    def __init__(
        self, dim: int, target_dim: int, *, num_folds: int, num_nulls: int, seed: int
    ) -> None:
        self._folds = [Moments(dim, target_dim, num_nulls=num_nulls) for _ in range(num_folds)]
        self._held: list[list[Samples]] = [[] for _ in range(num_folds)]
        self._num_nulls = num_nulls
        self._random = np.random.default_rng(seed)
        self._total: Moments | None = None
        self._rest: tuple[int, Moments] | None = None

    def add(self, fold: int, samples: Samples) -> None:
        """Add the samples of a clip."""
        self._held[fold].append(samples)
        if sum(len(one.x) for one in self._held[fold]) >= _HELD:
            self._flush(fold)

    def finish(self) -> None:
        """Add what is still held back."""
        for fold in range(len(self._folds)):
            self._flush(fold)

    def _flush(self, fold: int) -> None:
        held, self._held[fold] = self._held[fold], []
        if held:
            self.release()
            x, y = (np.concatenate([getattr(one, name) for one in held]) for name in "xy")
            orders = [self._random.permutation(len(x)) for _ in range(self._num_nulls)]
            self._folds[fold].add(x, y, orders=orders)

    def part(self, fold: int, null: int = 0) -> tuple[Covariances, Covariances]:
        """Return the covariances without a fold, and those of the fold.

        Fast for one fold after another, since the sums of the last one are kept.

        Raises:
            UsageError: the fold has fewer than two samples.
        """
        if self._rest is None or self._rest[0] != fold:
            self._rest = fold, self._all() - self._folds[fold]
        return self._rest[1].covariances(null), self._folds[fold].covariances(null)

    def whole(self) -> Covariances:
        """Return the covariances of all samples."""
        return self._all().covariances()

    def release(self) -> None:
        """Drop the sums that :meth:`part` keeps."""
        self._total = self._rest = None

    def _all(self) -> Moments:
        if self._total is None:
            self._total = self._folds[0]
            for one in self._folds[1:]:
                self._total = self._total + one
        return self._total


def gather(
    subject: Subject,
    target: Target,
    division: Division,
    *,
    layers: Sequence[str],
    components: Mapping[str, Components],
    num_nulls: int,
    seed: int,
    progress: Count | None = None,
) -> dict[str, LayerSums]:
    """Read all clips once, and return the sums of each layer.

    Args:
        subject: the network with its inputs.
        target: what its layers are compared with.
        division: folds of its clips.
        layers: layers to read.
        components: principal components of wide layers.
        num_nulls: P.
        seed: seed of the nulls, the same for all layers.
        progress: called with (clips done, all clips).

    Raises:
        UsageError: no clip has a sample, or a value is not finite.
    """
    sums: dict[str, LayerSums] = {}
    total = len(subject.places)
    for done, clip in enumerate(subject.clips(), 1):
        for layer in layers:
            samples = target.samples(clip, layer)
            if samples is None:
                break
            x = reduce(samples.x, components.get(layer))
            if layer not in sums:
                sums[layer] = LayerSums(
                    x.shape[1],
                    target.dim,
                    num_folds=division.num_folds,
                    num_nulls=num_nulls,
                    seed=seed,
                )
            sums[layer].add(int(division.folds[clip.row]), Samples(x, samples.y))
        if progress is not None:
            progress(done, total)
    if not sums:
        raise UsageError(f"no clip has a sample of the target {target.name}")
    for one in sums.values():
        one.finish()
    return sums


def reduce(x: Floats, components: Components | None) -> Floats:
    """Return samples (n, D) in principal components, if there are any."""
    return x if components is None else components.apply(x)
