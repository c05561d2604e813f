"""Waveforms of a corpus of sounds, decoded once and held in 16 bits: 32 kB a second."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.errors import UnreadableError, UsageError
from seit.ingest import decode_audio, list_corpus, read_bytes
from seit.models import SAMPLE_RATE

WINDOW_SECONDS = 20
"""Length that longer clips are cut to."""
MAX_BYTES = 1 << 32
"""Most bytes of waveforms that are held."""
_SCALE = 32767.0


@dataclass(frozen=True)
class Sound:
    """A clip.

    Attributes:
        key: its key.
        file: key of its file.
        label: index of its class, −1 for none.
        start: seconds from the start of the file.
        samples: int16 (T,) at 16 kHz.
    """

    key: str
    file: str
    label: int
    start: float
    samples: npt.NDArray[np.int16]

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def waveform(self) -> npt.NDArray[np.float32]:
        """Values float32 (T,), −1 to 1."""
        return self.samples.astype(np.float32) / np.float32(_SCALE)


@dataclass(frozen=True)
class Sounds:
    """Clips of a corpus.

    Attributes:
        clips: all clips, in the order of the corpus.
        classes: class names of their labels.
        unreadable: reason for each file that cannot be read, by key.
    """

    clips: Sequence[Sound]
    classes: tuple[str, ...]
    unreadable: dict[str, str]


def read_sounds(source: str, *, split: str | None = None) -> Sounds:
    """Decode the sounds of a corpus.

    Args:
        source: a corpus as `seit tokenize` takes it.
        split: the split to read; None for all.

    Raises:
        UsageError: there is none, none can be read, or they take too much memory.
    """
    corpus = list_corpus(source, modality="audio")
    splits = corpus.by_split()
    if split is not None and split not in splits:
        raise UsageError(f"{source} has no split {split!r}; it has {', '.join(splits)}")
    instances = corpus.instances if split is None else splits[split]
    clips: list[Sound] = []
    unreadable: dict[str, str] = {}
    held = 0
    for item in instances:
        try:
            data = read_bytes(item)
            found = list(_windows(data))
        except UnreadableError as error:
            unreadable[item.key] = str(error)
            continue
        for number, samples in enumerate(found):
            key = f"{item.key}#{number}" if len(found) > 1 else item.key
            clips.append(Sound(key, item.key, item.label, float(number * WINDOW_SECONDS), samples))
            held += samples.nbytes
        if held > MAX_BYTES:
            raise UsageError(
                f"the sounds of {source} take more than {MAX_BYTES >> 30} GiB in memory; pass a "
                "part of them, or a --split"
            )
    if not clips:
        reason = next(iter(unreadable.values()), "there are none")
        raise UsageError(f"{source} yields no sound that can be read ({reason})")
    return Sounds(clips, corpus.classes, unreadable)


def _windows(data: bytes) -> Iterator[npt.NDArray[np.int16]]:
    window = WINDOW_SECONDS * SAMPLE_RATE
    for values, num_valid in decode_audio(data, sample_rate=SAMPLE_RATE, window=window):
        scaled = (values[:num_valid] * _SCALE).round().clip(-_SCALE, _SCALE)
        yield scaled.astype(np.int16)
