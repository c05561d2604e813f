"""Inputs → pixels: read and decode instances in parallel, in order, with bounded memory.

Shape letters: B batch, S image side.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.errors import UnreadableError
from seit.tokenize.decode import decode_image
from seit.tokenize.sources import Instance, read_bytes


@dataclass(frozen=True)
class Decoded:
    """An instance and its pixels uint8 (S, S, 3), or the reason why it has none."""

    instance: Instance
    num_bytes: int
    pixels: npt.NDArray[np.uint8] | None
    reason: str = ""


class PixelReader:
    """Decodes instances in a pool of threads (Pillow frees the interpreter while it decodes)."""

    def __init__(self, *, size: int, max_pixels: int, workers: int | None = None) -> None:
        self._size = size
        self._max_pixels = max_pixels
        self._workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")

    def __enter__(self) -> "PixelReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, instances: Iterable[Instance], *, ahead: int = 128) -> Iterator[Decoded]:
        """Yield the instances in their order, decoded; at most ``ahead`` are held at a time."""
        pending: deque[Future[Decoded]] = deque()
        for instance in instances:
            pending.append(self._pool.submit(self._decode, instance))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _decode(self, instance: Instance) -> Decoded:
        num_bytes = 0
        try:
            data = read_bytes(instance)
            num_bytes = len(data)
            pixels = decode_image(data, size=self._size, max_pixels=self._max_pixels)
        except UnreadableError as error:
            return Decoded(instance, num_bytes, None, str(error))
        return Decoded(instance, num_bytes, pixels)
