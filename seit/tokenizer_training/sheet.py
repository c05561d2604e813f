"""Contact sheet: labeled originals and reconstructions of several tokenizers, as one PNG."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seit.errors import SeitError
from seit.files import write_atomically
from seit.tokenizer_training.pictures import Picture

_GAP = 8
_TEXT = 12
_LABEL = _TEXT + 8
_INK, _PAPER = (34, 34, 34), (255, 255, 255)


@dataclass(frozen=True)
class SheetRow:
    """A row of the sheet.

    Attributes:
        originals: input of each tokenizer, by name; they differ in size at most.
        rebuilt: reconstruction by each tokenizer.
    """

    originals: Mapping[str, Picture]
    rebuilt: Mapping[str, Picture]

    def psnr_db(self, name: str) -> float:
        """Return 10·log10(255² / MSE) of one reconstruction, in dB."""
        error = self.rebuilt[name].astype(np.float64) - self.originals[name]
        return float(10 * np.log10(255**2 / max(float(np.square(error).mean()), 1e-12)))


def write_sheet(path: Path, names: Sequence[str], rows: Iterable[SheetRow]) -> None:
    """Draw a row for each picture: the original, then each tokenizer's reconstruction.

    All cells have the size of the largest picture; smaller ones are scaled up.

    Raises:
        SeitError: there is no picture, or the file cannot be written.
    """
    rows = list(rows)
    if not rows:
        raise SeitError(f"{path} would be empty: none of the images chosen for it can be shown")
    side = max(len(one) for row in rows for one in row.originals.values())
    font = ImageFont.load_default(_TEXT)
    width = (side + _GAP) * (1 + len(names)) + _GAP
    height = _GAP + _LABEL + (side + _LABEL) * len(rows)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    def label(column: int, y: int, text: str) -> None:
        while draw.textlength(text, font) > side and len(text) > 2:
            text = "…" + text[2:]
        draw.text((_GAP + column * (side + _GAP), y), text, _INK, font)

    def place(column: int, y: int, picture: Picture) -> None:
        image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(image, (_GAP + column * (side + _GAP), y))

    for column, name in enumerate(("original", *names)):
        label(column, _GAP, name)
    for number, row in enumerate(rows):
        top = _GAP + _LABEL + number * (side + _LABEL)
        place(0, top, max(row.originals.values(), key=len))
        for column, name in enumerate(names, 1):
            place(column, top, row.rebuilt[name])
            label(column, top + side + 2, f"{row.psnr_db(name):.2f} dB")
    out = io.BytesIO()
    sheet.save(out, "PNG")
    write_atomically(path, out.getvalue())
