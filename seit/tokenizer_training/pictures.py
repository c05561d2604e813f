"""Images of a corpus for evaluation: center squares, or all tiles at their own resolution.

Legend: S side of the tokenizer's input.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import UnreadableError
from seit.ingest import Instance, decode_image, decode_whole, read_bytes
from seit.lookahead import map_ahead

Picture: TypeAlias = npt.NDArray[np.uint8]
"""Uint8 (S, S, 3)."""

_BATCH = 32


def read_pictures(
    instances: Sequence[Instance], *, size: int, tile: bool = False
) -> Iterator[list[Picture]]:
    """Yield the squares of each readable image, in order: one, or all of its tiles.

    Args:
        instances: images to read.
        size: S, in pixels.
        tile: cut images at their own resolution into non-overlapping tiles from the top left
            corner, none if the image is smaller. Otherwise resize and crop images.
    """

    def read(instance: Instance) -> list[Picture]:
        try:
            data = read_bytes(instance)
            return cut_tiles(decode_whole(data), size) if tile else [decode_image(data, size=size)]
        except UnreadableError:
            return []

    return (found for found in map_ahead(read, instances) if found)


def cut_tiles(pixels: npt.NDArray[np.uint8], size: int) -> list[Picture]:
    """Return the whole tiles of an image, row by row."""
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    return [
        np.ascontiguousarray(pixels[top : top + size, left : left + size])
        for top in range(0, rows * size, size)
        for left in range(0, columns * size, size)
    ]


def batched(pictures: Iterable[Picture]) -> Iterator[Tensor]:
    """Stack pictures to uint8 (B, S, S, 3)."""
    remaining = iter(pictures)
    while part := list(islice(remaining, _BATCH)):
        yield torch.from_numpy(np.stack(part))
