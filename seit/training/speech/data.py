"""Sounds as training data: splits of waveforms in memory, and inputs of the network.

Legend: B batch, T samples of a clip, n clips.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import Augmented
from seit.errors import UsageError
from seit.numbers import human_bytes
from seit.printable import printable
from seit.stream import Sound, read_sounds
from seit.training.data_identity import Inputs

TOKEN_BYTES = 1_280
"""Bytes of a window of 1 s as packed tokens of `mel-vq-1s`: 1,024 ids of 10 bits."""
_STORE_CARD = "store.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoundSplit:
    """A split.

    Attributes:
        name: its name.
        clips: n clips.
        classes: class names, indexed by labels.
    """

    name: str
    clips: Sequence[Sound]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def label_sets(self) -> None:
        """Nothing: a clip has one label."""
        return None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels int64 (n,), −1 for an unlabeled clip."""
        return np.array([clip.label for clip in self.clips], np.int64)

    @property
    def keys(self) -> list[str]:
        """Keys of the clips."""
        return [clip.key for clip in self.clips]

    @property
    def files(self) -> npt.NDArray[np.int64]:
        """Numbers int64 (n,), equal for the clips of a file."""
        numbers: dict[str, int] = {}
        each = [numbers.setdefault(clip.file, len(numbers)) for clip in self.clips]
        return np.array(each, np.int64)


@dataclass(frozen=True)
class SoundData(Inputs):
    """Splits of a corpus of sounds, decoded.

    Attributes:
        splits: splits by name.
    """

    splits: dict[str, SoundSplit]

    def __getitem__(self, name: str) -> SoundSplit:
        if name not in self.splits:
            raise UsageError(
                f"{self.folder} has no split {name!r}; it has {', '.join(self.splits)}: name one "
                "of them, or pass folders train/ and val/ or a manifest with splits"
            )
        return self.splits[name]

    def __contains__(self, name: object) -> bool:
        return name in self.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    @override
    def files_of(self, split: str) -> npt.NDArray[np.int64]:
        return self[split].files

    @property
    def bytes(self) -> int:
        """Bytes of all waveforms."""
        return sum(clip.samples.nbytes for split in self.splits.values() for clip in split.clips)

    @property
    def token_bytes(self) -> int:
        """Bytes of the same clips as packed tokens of `mel-vq-1s`, with windows of 1 s."""
        clips = [clip for split in self.splits.values() for clip in split.clips]
        return TOKEN_BYTES * sum(math.ceil(clip.seconds) for clip in clips)


def open_sounds(source: str | Path, *, seconds: float | None = None) -> SoundData:
    """Decode a corpus of sounds to train or evaluate on.

    Args:
        source: a folder, manifest or archive as `seit tokenize` takes it; a tenth of the files
            becomes `val` if it names no splits.
        seconds: length of all clips; see `seit.stream.read_sounds`.

    Raises:
        UsageError: there are none, or they are tokens already.
    """
    if (Path(source) / _STORE_CARD).is_file():
        raise UsageError(
            f"{source} is a store of tokens, and a speech model takes sounds; name the folder or "
            "manifest that it was made from, or leave --backbone out"
        )
    sounds = read_sounds(str(source), seconds=seconds)
    if sounds.unreadable:
        key, reason = next(iter(sounds.unreadable.items()))
        count = len(sounds.unreadable)
        _LOG.warning("%d files are left out, such as %s: %s", count, printable(key), reason)
    data = SoundData(
        folder=str(source),
        fingerprint=sounds.fingerprint,
        classes=sounds.classes,
        splits={
            name: SoundSplit(name, clips, sounds.classes) for name, clips in sounds.splits.items()
        },
    )
    _LOG.info(
        "%s clips of %s are held in memory as %s of waveforms; as tokens of mel-vq-1s they would "
        "take %s",
        f"{len(sounds.clips):,}",
        source,
        human_bytes(data.bytes),
        human_bytes(data.token_bytes),
    )
    return data


class SoundInputs(nn.Module):
    """Waveforms as they are: the inputs of a speech model have no augmentation."""

    channels = 1
    output_size = (1, 1)

    def forward(self, waves: Tensor, labels: Tensor, **given: Any) -> Augmented:
        """Return inputs and labels of a batch of waveforms int16 (B, T)."""
        del given
        ones = torch.ones(len(labels), device=labels.device)
        return Augmented(waves, labels, labels, ones)

    def evaluate(self, waves: Tensor) -> Tensor:
        """Return waveforms (B, T) as they are."""
        return waves
