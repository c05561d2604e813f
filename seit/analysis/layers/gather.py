"""One pass over a subject's clips: sums of every layer with a target, for each fold.

Legend: n samples, D features of a layer, K features of a target, F folds, P nulls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.journal import Arrays, Sums
from seit.analysis.layers.folds import Division
from seit.analysis.layers.moments import Covariances, Moments
from seit.analysis.layers.rearrangement import Rearrangement
from seit.analysis.layers.reduction import Components
from seit.analysis.layers.targets import Floats, Samples, Target
from seit.analysis.subjects.base import Subject
from seit.errors import DamagedError, UsageError
from seit.progress import Count

_HELD = 128
"""Least samples of a fold that are added at once: products of few are slow."""
_DONE = "clips"


@dataclass(frozen=True)
class _Part:
    """Samples of one clip or several.

    Attributes:
        x: layer (m, D).
        y: target (m, K).
        nulls: rearranged targets (P, m, K).
    """

    x: Floats
    y: Floats
    nulls: Floats


class LayerSums:
    """Sums of one layer with the target, for each fold.

    Args:
        dim: D.
        target_dim: K.
        num_folds: F.
        num_nulls: P.
    """

    def __init__(self, dim: int, target_dim: int, *, num_folds: int, num_nulls: int) -> None:
        self._folds = [Moments(dim, target_dim, num_nulls=num_nulls) for _ in range(num_folds)]
        self._held: list[list[_Part]] = [[] for _ in range(num_folds)]
        self._total: Moments | None = None
        self._rest: tuple[int, Moments] | None = None

    def add(self, fold: int, samples: Samples, nulls: Floats) -> None:
        """Add the samples of a clip, with rearranged targets (P, m, K)."""
        self._held[fold].append(_Part(samples.x, samples.y, nulls))
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
            part = _joined(held)
            self._folds[fold].add(part.x, part.y, nulls=part.nulls)

    def arrays(self) -> dict[str, npt.NDArray[np.floating]]:
        """Return all sums by name, and the samples that are held back."""
        found: dict[str, npt.NDArray[np.floating]] = {}
        for fold, (one, held) in enumerate(zip(self._folds, self._held, strict=True)):
            found |= {f"{fold}/{part}": values for part, values in one.arrays().items()}
            if held:
                part = _joined(held)
                found[f"{fold}/x"], found[f"{fold}/y"] = part.x, part.y
                found[f"{fold}/held_nulls"] = part.nulls
        return found

    def restore(self, arrays: Arrays) -> None:
        """Continue from :meth:`arrays`.

        Raises:
            KeyError: a sum is missing.
            ValueError: a sum has another shape.
        """
        for fold, own in enumerate(self._folds):
            one = Moments.of({part: arrays[f"{fold}/{part}"] for part in Moments.PARTS})
            if one.dims != own.dims:
                raise ValueError("sums of these features")
            self._folds[fold] = one
            if f"{fold}/x" in arrays:
                held = _Part(*(arrays[f"{fold}/{part}"] for part in ("x", "y", "held_nulls")))
                one.check(held.x, held.y, held.nulls)
                self._held[fold] = [held]

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


def _joined(parts: Sequence[_Part]) -> _Part:
    return _Part(
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        nulls=np.concatenate([part.nulls for part in parts], axis=1),
    )


def gather(
    subject: Subject,
    target: Target,
    division: Division,
    *,
    layers: Sequence[str],
    components: Mapping[str, Components],
    num_nulls: int,
    seed: int,
    kept: Sums | None = None,
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
        kept: sums of an interrupted pass, from which this one continues; None for none.
        progress: called with (clips done, all clips).

    Raises:
        UsageError: no clip has a sample, or a value is not finite.
        DamagedError: the kept sums are not of this pass.
    """
    total, kept = len(subject.places), kept or Sums(None)

    def empty(dim: int) -> LayerSums:
        folds = division.num_folds
        return LayerSums(dim, target.dim, num_folds=folds, num_nulls=num_nulls)

    rearrangement = Rearrangement(target, division, num_nulls=num_nulls, seed=seed)
    done, sums = _restored(kept.read(), layers, empty)

    def arrays() -> dict[str, npt.NDArray[np.floating]]:
        found: dict[str, npt.NDArray[np.floating]] = {_DONE: np.array([done], dtype=np.float64)}
        for layer, one in sums.items():
            found |= {f"{layer}/{part}": values for part, values in one.arrays().items()}
        return found

    with kept.keeping(subject.clips_after(done), arrays) as clips:
        for clip in clips:
            nulls: dict[int, Floats] = {}
            for layer in layers:
                samples = target.samples(clip, layer)
                if samples is None:
                    break
                x = reduce(samples.x, components.get(layer))
                if layer not in sums:
                    sums[layer] = empty(x.shape[1])
                count = len(x)
                if count not in nulls:
                    nulls[count] = rearrangement.samples(clip.row, count)
                fold = int(division.folds[clip.row])
                sums[layer].add(fold, Samples(x, samples.y), nulls[count])
            done += 1
            if progress is not None:
                progress(done, total)
    if not sums:
        raise UsageError(f"no clip has a sample of the target {target.name}")
    for one in sums.values():
        one.finish()
    return sums


def _restored(
    arrays: Arrays | None, layers: Sequence[str], empty: Callable[[int], LayerSums]
) -> tuple[int, dict[str, LayerSums]]:
    """Return the clips of an interrupted pass, and its sums of some layers."""
    if arrays is None:
        return 0, {}
    sums: dict[str, LayerSums] = {}
    try:
        done = int(arrays[_DONE][0])
        for layer in layers:
            own = {
                name.removeprefix(f"{layer}/"): values
                for name, values in arrays.items()
                if name.startswith(f"{layer}/")
            }
            if own:
                sums[layer] = empty(len(own["0/sum_x"]))
                sums[layer].restore(own)
    except (KeyError, IndexError, TypeError, ValueError, UsageError) as error:
        raise DamagedError(
            f"the sums of the interrupted analysis lack {error}; remove its folder and start again"
        ) from error
    return done, sums


def reduce(x: Floats, components: Components | None) -> Floats:
    """Return samples (n, D) in principal components, if there are any."""
    return x if components is None else components.apply(x)
