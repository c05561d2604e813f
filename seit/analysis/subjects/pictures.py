"""Pictures of a corpus, decoded once and held as uint8: 150 kB for 224 × 224 pixels.

Legend: n pictures, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from seit.analysis.subjects.base import Place
from seit.errors import UnreadableError, UsageError
from seit.fingerprints import hash_of
from seit.ingest import decode_whole, list_corpus, read_bytes

MAX_BYTES = 1 << 32
"""Most bytes of pixels that are held."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Pictures of a corpus.

    Attributes:
        places: all pictures, in the order of the corpus.
        pixels: uint8 (3, H, W) of each.
        classes: class names of their labels.
        unreadable: reason for each file that cannot be read, by key.
    """

    places: Sequence[Place]
    pixels: Sequence[Pixels]
    classes: tuple[str, ...]
    unreadable: dict[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels."""
        return hash_of(np.ascontiguousarray(one).tobytes() for one in self.pixels)


def read_pictures(
    source: str, transform: Callable[[Pixels], Pixels], *, split: str | None = None
) -> Pictures:
    """Decode the pictures of a corpus.

    Args:
        source: a corpus as `seit tokenize` takes it.
        transform: turns RGB (h, w, 3) into (3, H, W).
        split: the split to read; None for all.

    Raises:
        UsageError: there is none, none can be read, or they take too much memory.
    """
    corpus = list_corpus(source)
    splits = corpus.by_split()
    if split is not None and split not in splits:
        raise UsageError(f"{source} has no split {split!r}; it has {', '.join(splits)}")
    places: list[Place] = []
    pixels: list[Pixels] = []
    unreadable: dict[str, str] = {}
    held = 0
    for item in corpus.instances if split is None else splits[split]:
        try:
            decoded = decode_whole(read_bytes(item))
        except UnreadableError as error:
            unreadable[item.key] = str(error)
            continue
        places.append(Place(item.key, item.key, item.label))
        pixels.append(transform(decoded))
        held += pixels[-1].nbytes
        if held > MAX_BYTES:
            raise UsageError(
                f"the pictures of {source} take more than {MAX_BYTES >> 30} GiB in memory; pass a "
                "part of them, or a --split"
            )
    if not pixels:
        reason = next(iter(unreadable.values()), "there are none")
        raise UsageError(f"{source} yields no picture that can be read ({reason})")
    return Pictures(places, pixels, corpus.classes, unreadable)
