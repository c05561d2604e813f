"""Settings of the augmentations."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from seit.errors import UsageError

Interpolation = Literal["bicubic", "bilinear"]

_EXCLUSIVE_SHARES = (
    ("synonym_prob", "swap_prob"),
    ("noise_prob", "color_adapt_prob"),
    ("cutmix_prob", "mixup_prob"),
)
_LIMITS: dict[str, tuple[float, float]] = {
    "swap_max": (0, 0.5),
    "noise_scale": (0, math.inf),
    "noise_std": (0, math.inf),
    "crop_size": (0, math.inf),
    "synonym_top": (1, math.inf),
    "jitter": (0, 1),
    "freq_masks": (0, 64),
    "freq_mask_max": (0, 1),
    "time_masks": (0, 64),
    "time_mask_max": (0, 1),
    "time_roll": (0, 0.5),
}


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentations of a run; the defaults are the SeiT recipe (arXiv 2303.11114).

    Raises:
        UsageError: a value is out of range.
    """

    crop_size: int = 0
    """Cells (pixels) of the shorter side after cropping, keeping the grid's aspect ratio; 0 for 7/8
    of the grid, rounded: 32 → 28, 8 → 7, 256 → 224."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Range of a random crop's fraction of the grid's area, above 0, at most 1."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width / height of a random crop, relative to the grid's own: 1 keeps the grid's
    proportions, and crops of ``crop_scale`` 1 and ratio 1 are the whole grid, of any shape."""
    interpolation: Interpolation = "bicubic"
    """Interpolation of random crops: ``bicubic`` or ``bilinear``."""
    synonym_prob: float = 0.25
    """Probability of synonyms in a sample; at most 1 with ``swap_prob``, its alternative."""
    synonym_rate: float = 0.25
    """Fraction of tokens replaced in such a sample."""
    synonym_top: int = 5
    """Synonyms per code: its nearest codes by Euclidean distance, or all others if fewer."""
    swap_prob: float = 0.25
    """Probability of swapping two squares of a sample."""
    swap_max: float = 0.25
    """Maximum side of such a square, as a fraction of the grid's shorter side, 0–0.5."""
    noise_prob: float = 0.5
    """Probability of noise on a sample; at most 1 with ``color_adapt_prob``, its alternative."""
    noise_scale: float = 1.0
    """Standard deviation of a channel's shift, in that channel's deviation over the codes."""
    noise_std: float = 1.0
    """Standard deviation of an element's noise, in its channel's deviation over the codes."""
    color_adapt_prob: float = 0.0
    """Probability of giving a sample the channel statistics of its partner."""
    cutmix_prob: float = 1.0
    """Probability of CutMix for a sample; at most 1 with ``mixup_prob``, its alternative."""
    cutmix_alpha: float = 1.0
    """Both parameters of the Beta distribution of CutMix's area, above 0."""
    mixup_prob: float = 0.0
    """Probability of blending a sample with another."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution of Mixup's weight, above 0."""
    flip_prob: float = 0.0
    """Probability of a horizontal flip of a token grid, for flip-equivariant tokenizers."""
    pixel_flip_prob: float = 0.5
    """Probability of a horizontal flip of pixels; 0 for text, digits and signs."""
    jitter: float = 0.0
    """Maximum relative change of brightness, contrast and saturation, 0–1; for pixels only."""
    erase_prob: float = 0.0
    """Probability of erasing a box of 2–33 % of a sample."""
    token_adapt: str = ""
    """File of a trained TokenAdapt network that flips, rotates, shifts, shears and crops token
    grids; empty for none. For tokens only."""
    token_adapt_prob: float = 0.5
    """Probability of applying that network; other samples are cropped by resampling."""
    freq_masks: int = 0
    """Masked bands of rows (frequencies) per grid of a spectrogram, at most 64."""
    freq_mask_max: float = 0.2
    """Maximum width of these bands, as a fraction of the rows, 0–1."""
    time_masks: int = 0
    """Masked bands of columns (times) per grid, at most 64."""
    time_mask_max: float = 0.2
    """Maximum width of these bands, as a fraction of the columns, 0–1."""
    time_roll: float = 0.0
    """Maximum circular shift of a grid along its columns, as a fraction of them, 0–0.5."""
    order: Literal["seit", "seitpp"] = "seit"
    """Order of crop and colors (Emb-Noise, ColorAdapt). `seit` crops, or warps with TokenAdapt,
    then recolors, then mixes. `seitpp` recolors whole grids, then crops and mixes, or lifts for
    TokenAdapt, warps, mixes the lifted maps and reads tokens from them."""
    requantize: bool = False
    """Finally replace every vector by the nearest code, for networks pretrained on codes. For
    tokens of one level."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith(("_prob", "_rate")):
                _check_between(field.name, getattr(self, field.name), 0, 1)
        for first, second in _EXCLUSIVE_SHARES:
            total = getattr(self, first) + getattr(self, second)
            _check_between(f"{first} + {second}", total, 0, 1)
        for name, (low, high) in _LIMITS.items():
            _check_between(name, getattr(self, name), low, high)
        for name in ("cutmix_alpha", "mixup_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; expected above 0 and finite: use 1.0, or "
                    f"switch it off with {name.removesuffix('_alpha')}_prob 0"
                )
        _check_range("crop_scale", self.crop_scale, 1)
        _check_range("crop_ratio", self.crop_ratio, math.inf)
        if self.order not in ("seit", "seitpp"):
            raise UsageError(
                f"order is {self.order!r}; expected seit or seitpp: correct its spelling"
            )
        if self.interpolation not in ("bicubic", "bilinear"):
            raise UsageError(
                f"interpolation is {self.interpolation!r}; expected bicubic or bilinear: "
                "correct its spelling"
            )


# Both comparisons also reject NaN, which compares false with everything, and infinity.
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
