"""Instances of one subject on those of another: the same files, and the stretch that both cover."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seit.analysis.layers.pooling import frames_of
from seit.analysis.subjects.base import Clip, Place, Subject
from seit.errors import UsageError


@dataclass(frozen=True)
class Counterpart:
    """The instance of another subject that an instance is compared with.

    Attributes:
        row: number of the instance.
        other: number of the other subject's instance.
        start: seconds from the start of the file at which both begin; 0 for images.
        end: seconds at which the first of both ends; 0 for images.
    """

    row: int
    other: int
    start: float = 0.0
    end: float = 0.0


def counterparts(subject: Subject, other: Subject) -> list[Counterpart]:
    """Match each instance of a subject with the one of another that overlaps it most.

    Raises:
        UsageError: an instance has none, or one subject reads images and the other sounds.
    """
    theirs: dict[str, list[tuple[int, Place]]] = {}
    for number, place in enumerate(other.places):
        theirs.setdefault(place.file, []).append((number, place))
    found, missing = [], []
    for row, place in enumerate(subject.places):
        near = theirs.get(place.file, [])
        if near and bool(near[0][1].seconds) != bool(place.seconds):
            raise UsageError(
                f"{subject.name} and {other.name} read sounds and images; compare networks on the "
                "same kind of data"
            )
        shared = [(_overlap(place, one), -number) for number, one in near]
        best, number = max(shared, default=(0.0, 0))
        if not near or (place.seconds and best <= 0):
            missing.append(place.key)
            continue
        one = other.places[-number]
        start, end = max(place.start, one.start), min(_end(place), _end(one))
        found.append(Counterpart(row, -number, start, end if place.seconds else 0.0))
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(subject.places)} instances of {subject.name} are missing in "
            f"the data of {other.name} (the first: {missing[0]}); pass the same files to both"
        )
    return found


def paired_clips(
    subject: Subject, other: Subject, matches: Sequence[Counterpart]
) -> Iterator[tuple[Clip, Clip]]:
    """Yield both activations of each match, cut to the stretch that they share.

    Raises:
        UsageError: the subjects read the files in different orders.
    """
    numbers = [match.other for match in matches]
    if numbers != sorted(numbers):
        raise UsageError(
            f"{subject.name} and {other.name} read the files in different orders; make both data "
            "from the same corpus"
        )
    theirs = other.clips(sorted(set(numbers)))
    held: Clip | None = None
    for match, clip in zip(matches, subject.clips([match.row for match in matches]), strict=True):
        while held is None or held.row != match.other:
            held = next(theirs)
        yield (
            cut(clip, subject.places[match.row], match),
            cut(held, other.places[match.other], match),
        )


def cut(clip: Clip, place: Place, match: Counterpart) -> Clip:
    """Return the part of a clip that a match covers."""
    if not clip.seconds:
        return clip
    start, end = match.start - place.start, match.end - place.start
    values = {}
    for layer, frames in clip.values.items():
        first, stop = frames_of(
            start, end, rate=clip.rate(layer), num_frames=len(frames), part="whole"
        )
        values[layer] = frames[first:stop]
    return Clip(row=clip.row, values=values, seconds=match.end - match.start, tokens=clip.tokens)


def _end(place: Place) -> float:
    return place.start + place.seconds


def _overlap(first: Place, second: Place) -> float:
    return min(_end(first), _end(second)) - max(first.start, second.start)
