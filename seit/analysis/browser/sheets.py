"""Sheets of thumbnails: many small pictures in one JPEG, of which a page shows one tile each.

Legend: n pictures, H W height and width of a picture in pixels.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

TILE = 96
"""Longer side of a tile in pixels, at most."""
_QUALITY = 85


@dataclass(frozen=True)
class Tile:
    """Tile of a sheet.

    Attributes:
        caption: what it shows.
        style: CSS that shows it, whatever the size of the element.
    """

    caption: str
    style: str


def shrink(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Scale pictures uint8 (n, H, W, 3) down to at most ``TILE`` pixels a side."""
    height, width = pictures.shape[1:3]
    scale = min(1.0, TILE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [Image.fromarray(one).resize(size, Image.Resampling.LANCZOS) for one in pictures]
    return np.stack([np.asarray(one) for one in small])


def lay_out(
    pictures: npt.NDArray[np.uint8], name: str, captions: Sequence[str]
) -> tuple[bytes, list[Tile]]:
    """Lay pictures uint8 (n, H, W, 3) out on one JPEG, and return it with a tile for each.

    Args:
        pictures: at least one.
        name: name of the file that will hold the sheet.
        captions: (n,)
    """
    count, height, width = pictures.shape[:3]
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    sheet[:count] = pictures
    grid = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    image = Image.fromarray(grid.reshape(rows * height, columns * width, 3))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    shape = f"aspect-ratio:{width}/{height};background:url({name}) no-repeat"
    tiles = [
        Tile(
            caption,
            f"{shape};background-size:{100 * columns}% {100 * rows}%;background-position:"
            f"{_part(number % columns, columns)}% {_part(number // columns, rows)}%",
        )
        for number, caption in enumerate(captions)
    ]
    return buffer.getvalue(), tiles


def _part(place: int, count: int) -> str:
    return f"{100 * place / max(count - 1, 1):.4f}".rstrip("0").rstrip(".")
