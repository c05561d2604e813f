"""Ordered parallel decoding of instances into tokenizer inputs, with bounded memory.

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
"""Size from which on files are read and decoded one at a time."""


@dataclass(frozen=True)
class Sample:
    """Data of one sample: an image uint8 (S, S, 3), or a window of audio float32 (T,).

    ``instance`` is its input, with the key and metadata of the sample itself.
    """

    instance: Instance
    values: npt.NDArray[Any]


@dataclass(frozen=True)
class Decoded:
    """Instance with its samples, or the reason why it has none.

    Samples allow repeated iteration; those of a long recording are decoded during it. ``remarks``
    describe what was dropped from them or assumed.
    """

    instance: Instance
    num_bytes: int
    samples: Collection[Sample] = ()
    reason: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def pixels(self) -> npt.NDArray[np.uint8] | None:
        """Pixels of an image uint8 (S, S, 3); None if it is unreadable."""
        return next((sample.values for sample in self.samples), None)


class Reader:
    """Context manager that decodes instances in a pool of threads or processes."""

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
        """Yield decoded instances in order, holding at most ``ahead``."""
        return self._pool.map(instances, ahead=ahead)
