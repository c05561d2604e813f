"""Waveforms of a corpus of sounds, decoded once and held in 16 bits: 32 kB a second.

Legend: B batch, T samples of a clip, n clips.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import UnreadableError, UsageError
from seit.ingest import Cut, iterate_audio, list_corpus, read_bytes
from seit.stream.batches import IndexedLoader, Rank
from seit.stream.order import GlobalOrder, SubsetOrder
from seit.tokenizers import LEAST_SAMPLES, SAMPLE_RATE

WINDOW_SECONDS = 20.0
"""Length that longer clips are cut to."""
LEAST_SECONDS = 0.5
"""Length of the rest of a longer clip below which it is dropped."""
MAX_SECONDS = 86_400.0
"""Longest file that is read: a day, as the longest that a store takes."""
MAX_BYTES = 1 << 32
"""Most bytes of waveforms that are held."""
PADDING = -32_768
"""Value after the end of a clip in a batch; samples are −32,767 to 32,767."""
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
        split: its split.
    """

    key: str
    file: str
    label: int
    start: float
    samples: npt.NDArray[np.int16]
    split: str = ""

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / SAMPLE_RATE

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the samples."""
        return hashlib.sha256(self.samples.tobytes()).digest()

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
        fingerprint: fingerprint of the corpus.
    """

    clips: Sequence[Sound]
    classes: tuple[str, ...]
    unreadable: Mapping[str, str]
    fingerprint: str = ""

    @cached_property
    def splits(self) -> dict[str, list[Sound]]:
        """Clips of each split."""
        found: dict[str, list[Sound]] = {}
        for clip in self.clips:
            found.setdefault(clip.split, []).append(clip)
        return found

    @property
    def bytes(self) -> int:
        """Bytes of all waveforms."""
        return sum(clip.samples.nbytes for clip in self.clips)


def read_sounds(
    source: str,
    *,
    split: str | None = None,
    seconds: float | None = None,
) -> Sounds:
    """Decode the sounds of a corpus.

    Args:
        source: a corpus as `seit tokenize` takes it.
        split: the split to read; None for all.
        seconds: length of all clips, the last of a file padded with silence; None keeps the length
            of those up to 20 s, and cuts longer ones into pieces of 20 s and the rest, which is
            dropped below half a second.

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
    length = WINDOW_SECONDS if seconds is None else seconds
    for item in instances:
        try:
            found = cut_sounds(read_bytes(item), seconds=seconds)
        except UnreadableError as error:
            unreadable[item.key] = str(error)
            continue
        for number, samples in enumerate(found):
            key = f"{item.key}#{number}" if len(found) > 1 else item.key
            clips.append(Sound(key, item.key, item.label, number * length, samples, item.split))
            held += samples.nbytes
        if held > MAX_BYTES:
            raise UsageError(
                f"the sounds of {source} take more than {MAX_BYTES >> 30} GiB in memory; pass a "
                "part of them, or a --split"
            )
    if not clips:
        reason = next(iter(unreadable.values()), "there are none")
        raise UsageError(f"{source} yields no sound that can be read ({reason})")
    return Sounds(clips, corpus.classes, unreadable, corpus.fingerprint)


def cut_sounds(data: bytes, *, seconds: float | None = None) -> list[npt.NDArray[np.int16]]:
    """Decode a file to clips int16 (T,) at 16 kHz; see `read_sounds`.

    Raises:
        UnreadableError: it cannot be read, or is shorter than a frame.
    """
    window = round((WINDOW_SECONDS if seconds is None else seconds) * SAMPLE_RATE)
    least = round(LEAST_SECONDS * SAMPLE_RATE) if seconds is None else None
    cut = Cut(sample_rate=SAMPLE_RATE, window=window, max_seconds=MAX_SECONDS, least=least)
    found = []
    for values, num_valid in iterate_audio(data, cut):
        kept = values if seconds is not None else values[:num_valid]
        if len(kept) >= LEAST_SAMPLES:
            found.append((kept * _SCALE).round().clip(-_SCALE, _SCALE).astype(np.int16))
    if not found:
        raise UnreadableError(f"it is shorter than the {LEAST_SAMPLES} samples of a frame")
    return found


def padded(clips: Sequence[npt.NDArray[np.int16]]) -> Tensor:
    """Return clips as one batch int16 (B, T), with `PADDING` after the end of shorter ones."""
    batch = np.full((len(clips), max(map(len, clips))), PADDING, np.int16)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return torch.from_numpy(batch)


class SoundLoader(IndexedLoader):
    """Batches of waveforms int16 (B, T) at 16 kHz; see `padded`.

    Args:
        clips: n clips.
        batch_size: size of the global batch.
        shuffle: True for a new permutation in each epoch.
        seed: seed of the permutations.
        device: device of the batches.
        subset: rows int (m,) to use; None for all.
        rank: the process's part of each batch.
    """

    def __init__(
        self,
        clips: Sequence[Sound],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
        subset: npt.NDArray[np.integer] | None = None,
        rank: Rank | None = None,
    ) -> None:
        order = None
        if subset is not None:
            order = SubsetOrder(GlobalOrder(len(subset), seed=seed), subset, len(clips))
        super().__init__(
            labels=np.array([clip.label for clip in clips], np.int64),
            find_keys=lambda rows: [clips[row].key for row in rows.tolist()],
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
            order=order,
            rank=rank,
        )
        self._clips = clips

    @override
    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Load waveforms int16 (b, T) of the rows ``indices``."""
        batch = padded([self._clips[row].samples for row in indices.tolist()])
        return batch.to(self.device, non_blocking=True)
