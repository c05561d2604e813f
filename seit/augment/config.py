"""Settings of augmentation."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from seit.augment.crop import Interpolation
from seit.errors import UsageError

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
    "freq_masks": (0, 64),
    "freq_mask_max": (0, 1),
    "time_masks": (0, 64),
    "time_mask_max": (0, 1),
    "time_roll": (0, 0.5),
}


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
    """Interpolation of random crops: ``bicubic`` or ``bilinear``."""
    synonym_prob: float = 0.25
    """Share of samples whose tokens are partly replaced by synonyms; with ``swap_prob`` at most 1,
    as a sample meets one of the two or neither."""
    synonym_rate: float = 0.25
    """Share of tokens replaced in such a sample."""
    synonym_top: int = 5
    """Synonyms of a code: its nearest codes by Euclidean distance; all others in a smaller
    codebook."""
    swap_prob: float = 0.25
    """Share of samples of which two squares are exchanged."""
    swap_max: float = 0.25
    """Largest side of such a square, as a fraction of the grid's shorter side, 0–0.5."""
    noise_prob: float = 0.5
    """Share of samples whose embedding is noised; with ``color_adapt_prob`` at most 1, as a sample
    meets one of the two or neither."""
    noise_scale: float = 1.0
    """Standard deviation of the shift of a channel, in that channel's deviation over the codes."""
    noise_std: float = 1.0
    """Standard deviation of the noise of an element, in its channel's deviation over the codes."""
    color_adapt_prob: float = 0.0
    """Share of samples that take over the channel statistics of their partner."""
    cutmix_prob: float = 1.0
    """Share of samples into which a box of another is pasted; with ``mixup_prob`` at most 1, as a
    sample meets one of the two or neither."""
    cutmix_alpha: float = 1.0
    """Both parameters of the Beta distribution of CutMix's area, above 0."""
    mixup_prob: float = 0.0
    """Share of samples blended with another."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution of Mixup's weight, above 0."""
    flip_prob: float = 0.0
    """Share of samples mirrored horizontally; for pixels, as token grids do not mirror well."""
    token_adapt: str = ""
    """File of a trained TokenAdapt network, through which token grids are flipped, rotated,
    shifted, sheared and cropped; empty for none. For tokens alone."""
    token_adapt_prob: float = 0.5
    """Share of samples that go through that network; the others are cropped by resampling."""
    freq_masks: int = 0
    """Bands of rows (frequencies) that are masked in each grid of a spectrogram, at most 64."""
    freq_mask_max: float = 0.2
    """Widest of them, as a fraction of the rows, 0–1."""
    time_masks: int = 0
    """Bands of columns (times) that are masked in each grid, at most 64."""
    time_mask_max: float = 0.2
    """Widest of them, as a fraction of the columns, 0–1."""
    time_roll: float = 0.0
    """Largest circular shift of a grid along its columns, as a fraction of them, 0–0.5."""
    order: Literal["seit", "seitpp"] = "seit"
    """Order of crop and colors (Emb-Noise, ColorAdapt). `seit` crops, or warps by
    TokenAdapt, then recolors, then mixes. `seitpp` recolors whole grids, then crops and mixes, or
    lifts for TokenAdapt, warps, mixes the lifted maps and reads tokens from them."""
    requantize: bool = False
    """Replace every vector by the nearest code at last, so that a network which was pre-trained on
    codes sees nothing else. For tokens of one level."""

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
