"""Inputs → what a tokenizer takes: instances decoded in parallel, in order, with bounded memory.

Nothing here needs torch, so that processes that only decode start quickly.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from seit.ingest.inputs.pool import Decoder, DecodingPool
from seit.ingest.sources import Instance

LARGE_FILE_BYTES = 64 << 20
"""Files from this size on are read, and decoded, one at a time."""


@dataclass(frozen=True)
class Sample:
    """What becomes one sample: an image uint8 (S, S, 3), or a window of audio float32 (T,).

    ``instance`` is the input it is from, with a key and metadata of the sample's own.
    """

    instance: Instance
    values: npt.NDArray[Any]


@dataclass(frozen=True)
class Decoded:
    """An instance and its samples, or the reason why it has none.

    Samples can be gone through more than once; those of a long recording are decoded meanwhile.
    ``remarks`` say what was left out of them or assumed.
    """

    instance: Instance
    num_bytes: int
    samples: Collection[Sample] = ()
    reason: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def pixels(self) -> npt.NDArray[np.uint8] | None:
        """The pixels of an image uint8 (S, S, 3), if it could be read."""
        return next((sample.values for sample in self.samples), None)


class Reader:
    """Decodes instances in a pool of threads or of processes; use it in a ``with``."""

    def __init__(
        self,
        decoder: Decoder[Instance, Decoded],
        *,
        workers: int | None = None,
        processes: bool = False,
    ) -> None:
        self._pool: DecodingPool[Instance, Decoded] = DecodingPool(
            decoder, workers=workers or os.cpu_count() or 1, processes=processes
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def read(self, instances: Iterable[Instance], *, ahead: int = 128) -> Iterator[Decoded]:
        """Yield the instances in their order, decoded; at most ``ahead`` are held at a time."""
        return self._pool.map(instances, ahead=ahead)
