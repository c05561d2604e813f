"""Rows of images in a page, embedded in the document.

Legend: H, W height and width of a picture in pixels.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from seit.errors import UsageError
from seit.report.markup import element, frame, no_data

EXACT_SIDE = 64
"""Pictures up to this many pixels a side are embedded as lossless PNG; larger ones as JPEG."""
JPEG_QUALITY = 92
"""With full color resolution: its artifacts stay far below those of a tokenizer."""


@dataclass(frozen=True)
class Captioned:
    """A picture uint8 (H, W, 3), 0–255, and its caption."""

    picture: npt.NDArray[Any]
    caption: str


def image_grid(
    rows: Sequence[tuple[str, Sequence[npt.NDArray[Any] | Captioned]]],
    *,
    title: str,
    cell: int = 128,
) -> Markup:
    """Return labeled rows of pictures, such as originals over reconstructions.

    Each picture is uint8 (H, W, 3), 0–255, with or without a caption, and at most ``cell`` pixels
    wide on screen. Those larger than twice that are scaled down first. Rows may differ in length;
    columns line up from the left.

    Raises:
        UsageError: a picture is not uint8 (H, W, 3), or ``cell`` is below 1.
    """
    if cell < 1:
        raise UsageError(f"cell is {cell}, expected a width of at least 1 pixel")
    num_columns = max((len(pictures) for _, pictures in rows), default=0)
    if not num_columns:
        return no_data(title=title, kind="pictures")
    body = [
        element(
            "div",
            element("div", label, class_="row-label"),
            element(
                "div",
                *(
                    _cell(picture, name=f"{label}, image {column} of {len(pictures)}", cell=cell)
                    for column, picture in enumerate(pictures, start=1)
                ),
                class_="row",
            ),
        )
        for label, pictures in rows
        if len(pictures)
    ]
    size = f"--columns:{num_columns};--cell:{cell}px"
    return frame(element("div", *body, class_="sheet", style=size), title=title, kind="pictures")


def _cell(picture: npt.NDArray[Any] | Captioned, *, name: str, cell: int) -> Markup:
    if not isinstance(picture, Captioned):
        return _picture(picture, name=name, cell=cell)
    image = _picture(picture.picture, name=f"{name}: {picture.caption}", cell=cell)
    return element("div", image, element("div", picture.caption, class_="caption"))


def _picture(picture: npt.NDArray[Any], *, name: str, cell: int) -> Markup:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UsageError(
            f"{name}: the picture is {picture.dtype} of shape {picture.shape}, "
            "expected uint8 of shape (H, W, 3)"
        )
    height, width = picture.shape[:2]
    return element(
        "img",
        src=data_uri(picture, longest=2 * cell),
        alt=name,
        title=name,
        width=cell,
        height=max(1, round(cell * height / width)),
    )


def data_uri(picture: npt.NDArray[np.uint8], *, longest: int) -> str:
    """Return uint8 (H, W, 3) as a PNG or JPEG data URI of at most ``longest`` pixels a side."""
    kind, data = picture_file(picture, longest=longest)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture_file(picture: npt.NDArray[np.uint8], *, longest: int) -> tuple[str, bytes]:
    """Encode uint8 (H, W, 3) in at most ``longest`` pixels a side.

    Returns:
        `png` or `jpeg`, and the bytes.
    """
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= EXACT_SIDE:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return kind, buffer.getvalue()
