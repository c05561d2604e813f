"""Instances of one subject on those of another: the same files, and the stretch that both cover."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seit.analysis.layers.pooling import frames_of
from seit.analysis.subjects.base import Clip, Place, Subject
from seit.errors import UsageError

MAX_BYTES = 1 << 32
"""Most bytes of activations that are held."""


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
        # Views of a picture have no seconds, but keys of their own.
        shared = [(_overlap(place, one), one.key == place.key, -number) for number, one in near]
        best, _, number = max(shared, default=(0.0, False, 0))
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

    If the subjects read the files in different orders, the other's activations are held in memory.

    Raises:
        UsageError: they take too much of it.
    """
    numbers = [match.other for match in matches]
    theirs = other.clips(sorted(set(numbers)))
    held: dict[int, Clip] = {}
    if numbers != sorted(numbers):
        held = _all_of(theirs, other.name)
    is_ordered = not held
    clips = subject.clips([match.row for match in matches])
    for match, clip in zip(matches, clips, strict=True):
        if is_ordered and match.other not in held:
            one = next(theirs)
            held = {one.row: one}
        yield (
            cut(clip, subject.places[match.row], match),
            cut(held[match.other], other.places[match.other], match),
        )


def _all_of(clips: Iterator[Clip], name: str) -> dict[int, Clip]:
    held, size = {}, 0
    for clip in clips:
        held[clip.row] = clip
        size += sum(values.nbytes for values in clip.values.values())
        if size > MAX_BYTES:
            raise UsageError(
                f"the activations of {name} take more than {MAX_BYTES >> 30} GiB, as both subjects "
                "read the files in different orders; pass fewer files, or swap the subjects"
            )
    return held


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
