"""Targets that layers are compared with, and the samples of each.

Legend: m samples of a clip, n clips, D features of a layer, K features of a target, H W token grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.analysis.layers.alignments import Span, spans_of
from seit.analysis.layers.counterparts import Counterpart, cut
from seit.analysis.layers.pooling import Part, averaged, frames_of, resampled
from seit.analysis.subjects.base import Clip, Place
from seit.errors import UsageError
from seit.fingerprints import hash_of

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Samples:
    """Samples of one clip.

    Attributes:
        x: layer (m, D).
        y: target (m, K).
    """

    x: Floats
    y: Floats


class Target(ABC):
    """Target that layers are compared with.

    Attributes:
        name: its name in tables.
        dim: K.
        types: names of its classes, one for each of the K features; empty for other targets.
    """

    name: str
    dim: int
    types: tuple[str, ...] = ()

    @abstractmethod
    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return the samples of a clip; None if it has none."""

    @abstractmethod
    def size(self, row: int) -> int:
        """Return the number m of samples of a clip by its number, for even folds."""

    @abstractmethod
    def at(self, row: int, number: int, share: float) -> Floats:
        """Return the target (K,) of one sample, without the activations of its clip.

        Args:
            row: number of the clip.
            number: which of its samples, below its size.
            share: samples that a layer has for each of the target's, at most 1: frames are averaged
                accordingly.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of its values, or of what they follow from besides the clips."""


def _one_hot(number: int, dim: int) -> npt.NDArray[np.float32]:
    one = np.zeros(dim, dtype=np.float32)
    one[number] = 1.0
    return one


@dataclass(frozen=True)
class Selection:
    """Choice of labeled stretches.

    Attributes:
        fewest: instances that a type needs to be used.
        most: instances of a type that are used, chosen by the seed.
        seed: seed of the choice.
    """

    fewest: int = 20
    most: int = 200
    seed: int = 0

    def choose(self, labels: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
        """Return the types to use, in order, and whether each instance is used.

        Raises:
            UsageError: fewer than two types have enough instances.
        """
        names, index, counts = np.unique(
            np.asarray(labels, dtype=str), return_inverse=True, return_counts=True
        )
        is_common = counts >= self.fewest
        if is_common.sum() < 2:
            most = int(counts.max(initial=0))
            raise UsageError(
                f"of {len(names)} types {int(is_common.sum())} have at least {self.fewest} "
                f"instances (the most frequent has {most}); two are needed: pass a smaller "
                "--fewest, or more data"
            )
        order = np.random.default_rng(self.seed).permutation(len(labels))
        rank = np.empty(len(labels), dtype=np.int64)
        for number in range(len(names)):
            own = order[index[order] == number]
            rank[own] = np.arange(len(own))
        used: npt.NDArray[np.bool_] = is_common[index] & (rank < self.most)
        return tuple(names[is_common].tolist()), used


class LabelTarget(Target):
    """Class of each clip, one-hot; the layer is averaged over the clip.

    Raises:
        UsageError: fewer than two classes have enough clips.
    """

    name = "label"

    def __init__(
        self, places: Sequence[Place], classes: Sequence[str], selection: Selection
    ) -> None:
        rows = [row for row, place in enumerate(places) if place.label >= 0]
        named = [classes[places[row].label] for row in rows]
        self.types, used = selection.choose(named)
        number = {name: index for index, name in enumerate(self.types)}
        self.dim = len(self.types)
        self._type_of = {
            row: number[name]
            for row, name, is_used in zip(rows, named, used, strict=True)
            if is_used
        }

    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return one sample of a labeled clip."""
        if clip.row not in self._type_of:
            return None
        y = self.at(clip.row, 0, 1.0)[None]
        return Samples(clip.values[layer].mean(0, keepdims=True), y)

    def size(self, row: int) -> int:
        """Return 1 for a clip that is used."""
        return int(row in self._type_of)

    def at(self, row: int, number: int, share: float) -> Floats:
        """Return the class of a clip."""
        del number, share
        return _one_hot(self._type_of[row], self.dim)

    def fingerprint(self) -> str:
        """Return a hash of the class of each clip."""
        return hash_of([repr((self.types, sorted(self._type_of.items()))).encode()])


class SpanTarget(Target):
    """Phones or words, one-hot; the layer is averaged over the frames of each.

    Spans that a window cuts are left out.

    Args:
        places: all clips.
        alignments: spans of each file.
        part: frames of a span to average.
        selection: which of the spans to use.
        name: phone or word.

    Raises:
        UsageError: no clip has a span, or fewer than two types have enough.
    """

    def __init__(
        self,
        places: Sequence[Place],
        alignments: Mapping[str, list[Span]],
        *,
        part: Part,
        selection: Selection,
        name: str,
    ) -> None:
        self.name, self._part = name, part
        found = [
            (row, span.start - place.start, span.end - place.start, span.label)
            for row, place in enumerate(places)
            for span in spans_of(alignments, place.file)
            if place.start <= span.start and span.end <= place.start + place.seconds
        ]
        if not found:
            raise UsageError(
                f"the alignments cover none of the {len(places)} clips (the first is "
                f"{places[0].file if places else 'missing'}); their keys must be those of the "
                "files, with or without suffix"
            )
        self.types, used = selection.choose([label for *_, label in found])
        number = {label: index for index, label in enumerate(self.types)}
        self.dim = len(self.types)
        self._spans: dict[int, list[tuple[float, float, int]]] = {}
        for (row, start, end, label), is_used in zip(found, used, strict=True):
            if is_used:
                self._spans.setdefault(row, []).append((start, end, number[label]))

    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return a sample for each span of a clip."""
        spans = self._spans.get(clip.row)
        if not spans:
            return None
        frames, rate = clip.values[layer], clip.rate(layer)
        ranges = (
            frames_of(start, end, rate=rate, num_frames=len(frames), part=self._part)
            for start, end, _ in spans
        )
        x = np.stack([averaged(frames, first, stop) for first, stop in ranges])
        y = np.stack([_one_hot(number, self.dim) for *_, number in spans])
        return Samples(x, y)

    def size(self, row: int) -> int:
        """Return the number of spans of a clip."""
        return len(self._spans.get(row, ()))

    def at(self, row: int, number: int, share: float) -> Floats:
        """Return the class of a span."""
        del share
        return _one_hot(self._spans[row][number][2], self.dim)

    def fingerprint(self) -> str:
        """Return a hash of the spans of each clip."""
        return hash_of([repr((self.types, sorted(self._spans.items()))).encode()])


class CodesTarget(Target):
    """Share of each code among the tokens of a clip; the layer is averaged over the clip.

    Args:
        levels: levels of the tokenizer; each has codes of its own, and grids of it one above the
            other.
        num_codes: codes of a level.
        tokens: returns the ids (H, W) of a clip by its number.
    """

    name = "codes"

    def __init__(
        self, levels: int, num_codes: int, tokens: Callable[[int], npt.NDArray[np.integer]]
    ) -> None:
        self.dim = levels * num_codes
        self._levels, self._num_codes, self._tokens = levels, num_codes, tokens

    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return one sample of a clip.

        Raises:
            UsageError: the subject reads no tokens.
        """
        if clip.tokens is None:
            raise UsageError(
                "the target codes needs a subject that reads tokens, such as a run; choose another "
                "--target"
            )
        y = self._shares(clip.tokens)[None]
        return Samples(clip.values[layer].mean(0, keepdims=True), y)

    def at(self, row: int, number: int, share: float) -> Floats:
        """Return the shares of a clip."""
        del number, share
        return self._shares(self._tokens(row))

    def _shares(self, tokens: npt.NDArray[np.integer]) -> Floats:
        by_level = tokens.reshape(self._levels, -1).astype(np.int64)
        codes = by_level + np.arange(self._levels)[:, None] * self._num_codes
        counts = np.bincount(codes.ravel(), minlength=self.dim)
        shares: Floats = counts / counts.sum()
        return shares

    def size(self, row: int) -> int:
        """Return 1."""
        del row
        return 1

    def fingerprint(self) -> str:
        """Return a hash of the number of codes."""
        return hash_of([str(self.dim).encode()])


class MatrixTarget(Target):
    """A row of numbers for each clip; the layer is averaged over the clip.

    Args:
        values: (n, K), in the order of the clips.
        num_clips: n.
        name: its name in tables.

    Raises:
        UsageError: it has another number of rows, or a value that is not finite.
    """

    def __init__(self, values: Floats, num_clips: int, *, name: str) -> None:
        if values.ndim != 2 or len(values) != num_clips or not values.shape[1]:
            raise UsageError(
                f"the target {name} has shape {values.shape} where {num_clips} rows are expected, "
                "one a clip, of at least one number"
            )
        if not np.isfinite(values).all():
            raise UsageError(f"the target {name} holds values that are not finite")
        self.name, self.dim, self._values = name, values.shape[1], values

    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return one sample of a clip."""
        return Samples(clip.values[layer].mean(0, keepdims=True), self._values[[clip.row]])

    def size(self, row: int) -> int:
        """Return 1."""
        del row
        return 1

    def at(self, row: int, number: int, share: float) -> Floats:
        """Return the numbers of a clip."""
        del number, share
        numbers: Floats = self._values[row]
        return numbers

    def fingerprint(self) -> str:
        """Return a hash of the numbers."""
        return hash_of([np.ascontiguousarray(self._values).tobytes()])


class FramesTarget(Target):
    """Frames of another layer or spectrogram, at the lower of both rates.

    Args:
        frames: float32 (T, K) of each clip, by its number.
        dim: K.
        name: its name in tables.
        places: places of the clips, if frames cover a part of them.
        matches: the part that they cover, by number.
    """

    def __init__(
        self,
        frames: Mapping[int, npt.NDArray[np.float32]],
        *,
        dim: int,
        name: str,
        places: Sequence[Place] = (),
        matches: Mapping[int, Counterpart] | None = None,
    ) -> None:
        self._frames, self.dim, self.name = frames, dim, name
        self._places, self._matches = places, matches or {}

    def samples(self, clip: Clip, layer: str) -> Samples | None:
        """Return a sample for each frame of a clip."""
        match = self._matches.get(clip.row)
        part = clip if match is None else cut(clip, self._places[clip.row], match)
        own, other = part.values[layer], self._frames[clip.row]
        count = min(len(own), len(other))
        return Samples(resampled(own, count), resampled(other, count))

    def size(self, row: int) -> int:
        """Return the number of frames of a clip."""
        return len(self._frames[row])

    def at(self, row: int, number: int, share: float) -> Floats:
        """Return a frame, or the mean of the frames that `samples` averages with it."""
        frames = self._frames[row]
        size, count = len(frames), max(1, round(share * len(frames)))
        place = number * count // size
        first, stop = (round(edge * size / count) for edge in (place, place + 1))
        return averaged(frames, first, stop)

    def fingerprint(self) -> str:
        """Return a hash of the frames of all clips."""
        rows = sorted(self._frames)
        return hash_of(np.ascontiguousarray(self._frames[row]).tobytes() for row in rows)
