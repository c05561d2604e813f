"""Augmented views of an image: random crops that depend only on the seed and the key.

View 0 is the plain image. The others are crops of 35 to 100 % of its area at aspect ratios of 3:4
to 4:3, half of them mirrored, as in training on pixels (Szegedy et al., "Going Deeper with
Convolutions", arXiv 1409.4842, section 6; there from 8 % on). A crop that would exceed the image is
clipped, whereas others draw again.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Self

MAX_VIEWS = 64
VIEW_SIGN = "#v"
"""Separator of an instance's key and the number of its view."""
LEAST_SCALE = 0.35
"""Smallest share of an image's area that a view covers."""
MAX_RATIO = 4 / 3

_NUMBERS = frozenset(str(number) for number in range(1, MAX_VIEWS))
_DRAWS = 5
_DRAW_BYTES = 8


@dataclass(frozen=True)
class Crop:
    """Position of a view in an image of any size.

    Attributes:
        scale: share of the image's area, 0–1.
        ratio: width over height.
        left: share of the horizontal slack to the left of the crop, 0–1.
        top: share of the vertical slack above the crop, 0–1.
        flips: whether it is mirrored.
    """

    scale: float
    ratio: float
    left: float
    top: float
    flips: bool

    @classmethod
    def draw(cls, *, seed: int, key: str, view: int) -> Self:
        """Draw the crop of a view, the same on every machine."""
        digest = hashlib.blake2b(
            f"{seed} {view} {key}".encode(), digest_size=_DRAWS * _DRAW_BYTES, person=b"seit-view"
        ).digest()
        scale, ratio, left, top, flip = (
            int.from_bytes(digest[start : start + _DRAW_BYTES]) / 2**64
            for start in range(0, len(digest), _DRAW_BYTES)
        )
        return cls(
            scale=LEAST_SCALE + (1 - LEAST_SCALE) * scale,
            ratio=math.exp((2 * ratio - 1) * math.log(MAX_RATIO)),
            left=left,
            top=top,
            flips=flip < 0.5,
        )

    def box(self, width: float, height: float) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in an image of this size, in pixels."""
        area = self.scale * width * height
        wide = min(math.sqrt(area * self.ratio), width)
        high = min(math.sqrt(area / self.ratio), height)
        left, top = self.left * (width - wide), self.top * (height - high)
        return left, top, min(left + wide, width), min(top + high, height)


def split_view(key: str) -> tuple[str, int]:
    """Return the instance's key and the number of the view, or the key itself and 0."""
    own, sign, number = key.rpartition(VIEW_SIGN)
    if sign and number in _NUMBERS:
        return own, int(number)
    return key, 0


def view_key(key: str, view: int) -> str:
    """Return the key of a view: the instance's own for view 0, else ``key#v1`` and so on."""
    return f"{key}{VIEW_SIGN}{view}" if view else key
