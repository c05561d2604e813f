"""Augmentation of one sample by the settings of a recipe, with the code that trains with them.

Legend: L levels, K codes, C codebook dim, H W grid; (H, W) of ids holds the rows of all levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.augment import AugmentConfig, TokenAugment, nearest_ids
from seit.errors import UsageError
from seit.shards import Store

_MAX_SEED = 1 << 32


@dataclass(frozen=True)
class Slider:
    """Setting of the augmentations: its field, most, step, and value without effect."""

    name: str
    most: float
    step: float
    neutral: float = 0.0


SLIDERS = (
    Slider("synonym_prob", 1, 0.05),
    Slider("synonym_rate", 1, 0.05, 0.25),
    Slider("swap_prob", 1, 0.05),
    Slider("swap_max", 0.5, 0.05, 0.25),
    Slider("crop_scale", 1, 0.02, 1.0),
    Slider("noise_prob", 1, 0.05),
    Slider("noise_scale", 3, 0.1, 1.0),
    Slider("noise_std", 3, 0.1, 1.0),
    Slider("color_adapt_prob", 1, 0.05),
    Slider("erase_prob", 1, 0.05),
    Slider("cutmix_prob", 1, 0.05),
    Slider("mixup_prob", 1, 0.05),
    Slider("time_roll", 0.5, 0.05),
    Slider("freq_masks", 4, 1),
    Slider("time_masks", 4, 1),
)
"""Settings of `augment` that a page offers; `crop_scale` is the least share of the area."""


def config_of(values: Mapping[str, str], grid: tuple[int, int]) -> tuple[AugmentConfig, int]:
    """Return the augmentations and the seed that an address asks for; the grid keeps its size.

    Raises:
        UsageError: a value is no number, or out of range.
    """
    found: dict[str, Any] = {"crop_size": min(grid)}
    for slider in SLIDERS:
        number = _number(values, slider.name, slider.neutral)
        found[slider.name] = round(number) if slider.step == 1 else number
    found["crop_scale"] = (found["crop_scale"], 1.0)
    seed = int(_number(values, "seed", 0))
    if not 0 <= seed < _MAX_SEED:
        raise UsageError(f"seed is {seed}; expected 0 to {_MAX_SEED - 1}")
    return AugmentConfig(**found), seed


@torch.inference_mode()
def augment_ids(
    store: Store,
    tokens: npt.NDArray[np.unsignedinteger],
    partner: npt.NDArray[np.unsignedinteger],
    config: AugmentConfig,
    *,
    seed: int,
) -> npt.NDArray[np.unsignedinteger]:
    """Augment ids (H, W), mixed with a partner's, and return the nearest codes, (H, W).

    Of a residual tokenizer, whose codes add up, the rest of each level is given the nearest code of
    the next. A cell whose vector did not change keeps its ids.
    """
    codebook = torch.from_numpy(store.codebook)
    augment = TokenAugment(codebook, store.card.tokenizer.grid, config)
    batch = torch.from_numpy(np.stack([tokens, partner]).astype(np.int64))
    mixed = augment(
        batch,
        torch.zeros(2, dtype=torch.int64),
        positions=torch.tensor([0, 1]),
        seed=seed,
        epoch=0,
        partner=torch.tensor([1, 0]),
    )
    codes_LKC = codebook.view(store.levels, *codebook.shape[-2:])
    ids_LHW = _residual_ids(mixed.inputs[:1], codes_LKC)
    own_LHW = batch[0].view(store.levels, -1, batch.shape[-1])
    if ids_LHW.shape == own_LHW.shape:
        own = sum(codes[ids] for codes, ids in zip(codes_LKC, own_LHW, strict=True))
        kept = torch.isclose(mixed.inputs[0].permute(1, 2, 0), own).all(dim=-1)
        ids_LHW = torch.where(kept, own_LHW, ids_LHW)
    return np.asarray(ids_LHW.flatten(0, 1).numpy().astype(tokens.dtype))


def _residual_ids(x_1CHW: Tensor, codes_LKC: Tensor) -> Tensor:
    """Return ids int64 (L, H, W): each level takes the code nearest to what the former left."""
    rest_1CHW, found = x_1CHW, []
    for codes_KC in codes_LKC:
        found.append(nearest_ids(rest_1CHW, codes_KC))
        rest_1CHW = rest_1CHW - codes_KC[found[-1]].permute(0, 3, 1, 2)
    return torch.cat(found)


def _number(values: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(values.get(name, "") or default)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise UsageError(f"{name} is {values[name][:40]!r}; expected a number")
    return number
