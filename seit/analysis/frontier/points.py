"""Points of a comparison: ways to store the training pictures, by name.

pixels            the files of SRC as they are
jpeg-10           the squares that the network sees, as JPEG of this quality (1 to 95)
res-1/4           the same at a quarter of the side, as JPEG of quality 75; res-1/4-q95 of 95
subset-25         a quarter (in %) of the files of SRC, as many of each class
tokens-patch      tokens of patch-pca-vq; tokens-patch-64 with a codebook of 64
tokens-lite       tokens of conv-vq-f8-1024-lite; tokens-conv of conv-vq-f8-1024
tokens-…-packed   the same tokens at a fixed width instead of entropy coded
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, TypeAlias

from seit.errors import UsageError

Family: TypeAlias = Literal["pixels", "jpeg", "resolution", "subset", "tokens"]
Codec: TypeAlias = Literal["context", "packed"]

FAMILIES: dict[Family, str] = {
    "tokens": "tokens",
    "pixels": "original files",
    "jpeg": "JPEG quality",
    "resolution": "lower resolution",
    "subset": "fewer pictures",
}
"""Display names of the families, in the order of the chart's colors."""

DEFAULT_POINTS = (
    "pixels",
    *(f"jpeg-{quality}" for quality in (1, 5, 10, 25, 50, 75)),
    *(f"res-1/{divisor}" for divisor in (2, 4, 8)),
    *(f"subset-{percent}" for percent in (10, 25, 50)),
    *("tokens-patch", "tokens-patch-256", "tokens-patch-64", "tokens-lite"),
)
RESOLUTION_QUALITY = 75
MAX_QUALITY = 95
"""Highest quality; above it files grow while pictures hardly change, according to Pillow."""
MAX_DIVISOR = 32

FITTED = "patch-pca-vq"
TOKENIZERS = {"patch": FITTED, "lite": "conv-vq-f8-1024-lite", "conv": "conv-vq-f8-1024"}

_JPEG = re.compile(r"jpeg-([1-9]\d?)", re.ASCII)
_RESOLUTION = re.compile(r"res-1/([1-9]\d?)(?:-q([1-9]\d?))?", re.ASCII)
_SUBSET = re.compile(r"subset-([1-9]\d?)", re.ASCII)
_TOKENS = re.compile(r"tokens-(patch|lite|conv)(?:-([1-9]\d{0,4}))?(-packed)?", re.ASCII)


@dataclass(frozen=True)
class Point:
    """One way to store the training pictures.

    Attributes:
        name: name for users.
        family: quantity that it varies.
        quality: JPEG quality of its copies, 1 to 95; 0 without copies.
        divisor: ratio of the square's side to that of its copies.
        fraction: share of each class's pictures that it keeps, 0–1.
        tokenizer: tokenizer of its tokens; empty for pixels.
        codes: codebook size K of a fitted tokenizer; None for the comparison's.
        codec: codec of its tokens.
    """

    name: str
    family: Family
    quality: int = 0
    divisor: int = 1
    fraction: float = 1.0
    tokenizer: str = ""
    codes: int | None = None
    codec: Codec = "context"

    @property
    def folder(self) -> str:
        """Name as a folder name."""
        return self.name.replace("1/", "")

    @property
    def trained_as(self) -> str:
        """Folder of its runs; points whose codec alone differs share it, as their ids are equal."""
        return self.folder.removesuffix("-packed")


def parse_points(names: Iterable[str]) -> tuple[Point, ...]:
    """Return the points of these names, in order; of two names of one point, the first.

    Raises:
        UsageError: a name is invalid, or there is none.
    """
    points: dict[Point, Point] = {}
    for name in names:
        point = _parse(name)
        points.setdefault(replace(point, name=""), point)
    if not points:
        raise UsageError(f"no points are named; choose from {', '.join(DEFAULT_POINTS)} and others")
    return tuple(points.values())


def _parse(name: str) -> Point:
    if name == "pixels":
        return Point(name, "pixels")
    if (match := _JPEG.fullmatch(name)) and int(match[1]) <= MAX_QUALITY:
        return Point(name, "jpeg", quality=int(match[1]))
    if match := _RESOLUTION.fullmatch(name):
        divisor, quality = int(match[1]), int(match[2] or RESOLUTION_QUALITY)
        if 2 <= divisor <= MAX_DIVISOR and quality <= MAX_QUALITY:
            return Point(name, "resolution", quality=quality, divisor=divisor)
    if match := _SUBSET.fullmatch(name):
        return Point(name, "subset", fraction=int(match[1]) / 100)
    if (match := _TOKENS.fullmatch(name)) and (match[1] == "patch" or not match[2]):
        return Point(
            name,
            "tokens",
            tokenizer=TOKENIZERS[match[1]],
            codes=int(match[2]) if match[2] else None,
            codec="packed" if match[3] else "context",
        )
    near = get_close_matches(name, DEFAULT_POINTS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(DEFAULT_POINTS)}"
    raise UsageError(f"there is no point {name!r}; {hint}")
