"""ViTs over tokens: backbones with one patch convolution and a constant resolution.

They are recognized by structure, not by class: all feature maps have one reduction, and the
embedding is timm's ``PatchEmbed``. Examples: VisionTransformer, DeiT, EVA, BEiT, CaiT, MLP-Mixer.
"""

import math
from collections.abc import Mapping
from typing import Any

from timm.layers import PatchEmbed
from torch import nn

from seit.errors import UsageError
from seit.models.hierarchy import feature_entries
from seit.models.stem import Stem
from seit.models.timm_models import instantiate, settle, sketch

_USUAL = Stem(4, 2, 1)
_SMALL = Stem(3, 1, 1)
_DISJOINT = Stem(2, 2, 0)
_EARLY = {
    "early/4": Stem.early_convolutions((1, 2, 2)),
    "early/2": Stem.early_convolutions((1, 1, 2)),
    "early/1": Stem.early_convolutions((1, 1, 1)),
}
"""Three convolutions by name, with the side of a patch in tokens."""
_FEWEST_PATCHES = 7 * 7
"""Minimum number of patches that the default stem may leave."""


def takes_patches(name: str, **kwargs: Any) -> bool:
    """Return whether the timm model ``name`` has a ViT's stem, written kernel/stride/padding.

    Raises:
        UsageError: timm has no such model, or the arguments are invalid.
    """
    of_timm = {key: value for key, value in kwargs.items() if key != "last_stage"}
    return is_vit(sketch(name, settle(name, of_timm)))


def is_vit(model: nn.Module) -> bool:
    """Return whether all features of a model have one resolution."""
    return len({entry["reduction"] for entry in feature_entries(model)}) == 1


def vit_stem(stem: str, input_size: tuple[int, int]) -> Stem:
    """Parse the stem of a ViT: ``auto`` is 4/2/1, or 3/1/1 if that leaves under 49 patches.

    ``early/4``, ``early/2`` and ``early/1`` are three convolutions that make patches of so many
    tokens along a side.

    Raises:
        UsageError: it is none of these, nor kernel/stride/padding.
    """
    if stem in ("up", "later"):
        raise UsageError(
            f"stem is {stem!r}, but a ViT has no stages; its stem is auto, none, "
            f"{', '.join(_EARLY)} or kernel/stride/padding, such as 4/2/1"
        )
    if stem in _EARLY:
        return _EARLY[stem]
    if stem.startswith("early"):
        raise UsageError(f"stem is {stem!r}; of this kind there are {', '.join(_EARLY)}")
    if stem != "auto":
        return Stem.parse(stem)
    if min(input_size) < _USUAL.kernel:
        return _SMALL
    rows, columns = _USUAL.output_size(input_size)
    return _USUAL if rows * columns >= _FEWEST_PATCHES else _SMALL


def vit_pixel_stem(stem: str, grid: tuple[int, int], patch_size: int) -> Stem:
    """Return the stem over pixels for patches as large as those of a stem over tokens.

    A stem of several layers that is written out is already one over pixels.

    Args:
        stem: stem of the ViT.
        grid: rows and columns of the tokens.
        patch_size: pixels per token along a side.

    Raises:
        UsageError: see `vit_stem`.
    """
    parsed = vit_stem(stem, grid)
    if stem not in _EARLY and parsed.early:
        return parsed
    side = parsed.side * patch_size
    if not parsed.early:
        return Stem(side, side, 0)
    first = math.gcd(side, 2)
    second = math.gcd(side // first, 2)
    return Stem.early_convolutions((first, second, side // (first * second)))


def disjoint_stem(stem: str, input_size: tuple[int, int]) -> Stem:
    """Parse the stem of a ViT for pretraining; ``auto`` has non-overlapping patches.

    It is 2/2/0, or 1/1/0 if that would leave under 49 patches.

    Raises:
        UsageError: it is neither ``auto`` nor kernel/stride/padding.
    """
    if stem != "auto":
        return vit_stem(stem, input_size)
    rows, columns = (size // _DISJOINT.stride for size in input_size)
    return _DISJOINT if rows * columns >= _FEWEST_PATCHES else Stem(1, 1, 0)


def make_vit(
    name: str, settings: Mapping[str, Any], *, stem: Stem, input_size: tuple[int, int]
) -> nn.Module:
    """Build a timm ViT with ``stem`` as its patch embedding.

    Args:
        name: name of the model.
        settings: arguments of `timm.create_model`, including ``in_chans``.
        stem: the convolution.
        input_size: rows and columns of the input.

    Raises:
        UsageError: the settings are invalid, or it embeds patches in another way.
    """
    pooling = "token" if "distilled" in name else "avg"  # DeiT's two heads read two tokens
    model = instantiate(
        name,
        {
            "global_pool": pooling,
            **settings,
            "img_size": stem.output_size(input_size),
            "patch_size": 1,
        },
    )
    embed = _patch_embed(model, name)
    assert isinstance(embed.proj, nn.Conv2d)
    adaptor: Any = stem.build(settings["in_chans"], embed.proj.out_channels)
    embed.proj = adaptor
    embed.patch_size = (stem.kernel, stem.kernel)
    embed.img_size = input_size
    return model


def check_patch_embed(model: nn.Module, name: str) -> None:
    """Check that a stem can replace the patch embedding of a ViT.

    Raises:
        UsageError: it embeds patches in another way.
    """
    _patch_embed(model, name)


def _patch_embed(model: nn.Module, name: str) -> PatchEmbed:
    embed = getattr(model, "patch_embed", None) or getattr(model, "stem", None)
    if not isinstance(embed, PatchEmbed):
        kind = "modules of its own" if embed is None else f"a {type(embed).__name__}"
        raise UsageError(
            f"{name!r} embeds patches by {kind}, which no stem can replace; choose a plain ViT or "
            "DeiT"
        )
    return embed
