"""What is augmented, and how much."""

import math
from dataclasses import dataclass, fields

from seit.augment.crop import Interpolation
from seit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The augmentations of a run; the defaults are the SeiT recipe (arXiv 2303.11114).

    Raises:
        UsageError: for a value outside its range.
    """

    crop_size: int = 0
    """Cells (pixels) of the shorter side after cropping, the other side in the grid's proportion;
    0 means 7/8 of the grid, rounded: 32 → 28, 8 → 7, 256 → 224."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Lowest and highest share of the grid's area that a random crop covers, above 0, at most 1."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Lowest and highest width / height of a random crop."""
    interpolation: Interpolation = "bicubic"
    """How a random crop is resized: ``bicubic`` or ``bilinear``."""
    synonym_prob: float = 0.25
    """Share of samples whose tokens are partly replaced by synonyms; with ``swap_prob`` at most 1,
    as a sample meets one of the two or neither."""
    synonym_rate: float = 0.25
    """Share of tokens replaced in such a sample."""
    synonym_top: int = 5
    """Synonyms of a code: its nearest codes by cosine; all others in a smaller codebook."""
    swap_prob: float = 0.25
    """Share of samples of which two squares are exchanged."""
    swap_max: float = 0.25
    """Largest side of such a square, as a fraction of the grid's shorter side, 0–0.5."""
    noise_prob: float = 0.5
    """Share of samples whose embedding is noised."""
    noise_scale: float = 1.0
    """Standard deviation of the shift of a channel, in RMS deviations of the codebook."""
    noise_std: float = 1.0
    """Standard deviation of the noise of an element, in RMS deviations of the codebook."""
    cutmix_prob: float = 1.0
    """Share of samples into which a box of another is pasted."""
    cutmix_alpha: float = 1.0
    """Both parameters of the Beta distribution of CutMix's area, above 0, at most 1."""
    flip_prob: float = 0.0
    """Share of samples mirrored horizontally; for pixels, as token grids do not mirror well."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith(("_prob", "_rate")):
                _check_between(field.name, getattr(self, field.name), 0, 1)
        _check_between("synonym_prob + swap_prob", self.synonym_prob + self.swap_prob, 0, 1)
        _check_between("swap_max", self.swap_max, 0, 0.5)
        for name in ("noise_scale", "noise_std", "crop_size"):
            _check_between(name, getattr(self, name), 0, math.inf)
        _check_between("synonym_top", self.synonym_top, 1, math.inf)
        if not 0 < self.cutmix_alpha <= 1:
            raise UsageError(
                f"cutmix_alpha is {self.cutmix_alpha}; expected above 0, at most 1: use 1.0, or "
                "switch CutMix off with cutmix_prob 0"
            )
        _check_range("crop_scale", self.crop_scale, 1)
        _check_range("crop_ratio", self.crop_ratio, math.inf)
        if self.interpolation not in ("bicubic", "bilinear"):
            raise UsageError(
                f"interpolation is {self.interpolation!r}; expected bicubic or bilinear: "
                "correct its spelling"
            )


# Both are written so that NaN, which compares false with everything, is refused; so is infinity.
def _check_between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or math.isinf(value):
        expected = f"{low} to {high}" if high < math.inf else f"at least {low} and finite"
        raise UsageError(f"{name} is {value}; expected {expected}: choose a value within")


def _check_range(name: str, pair: tuple[float, float], high: float) -> None:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= high or math.isinf(pair[1]):
        expected = f"at most {high}" if high < math.inf else "finite"
        raise UsageError(
            f"{name} is {pair}; expected two numbers, the lower first, above 0 and {expected}: "
            "choose a range within"
        )
