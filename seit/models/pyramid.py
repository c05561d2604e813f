"""Hierarchical backbones over tokens: ResNet, ConvNeXt, RegNet, EfficientNet, Swin and their kin.

A grid of tokens stands for a picture of about 224×224 pixels: 28×28 tokens for 8×8 pixels each.
The backbone is built for that picture, and tokens enter where its own features have their place.

Legend: h w grid.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seit.errors import UsageError
from seit.models.entry import Entry, enter
from seit.models.hierarchy import Hierarchy, measure, size_and_dim
from seit.models.timm_models import instantiate, sketch, takes

_ENTRIES: dict[str, Entry] = {"auto": "later", "up": "up", "later": "later"}
"""For ``auto``, the comparison in docs/backbones.md decided."""

_PIXELS = 224 * 224
_PIXELS_PER_TOKEN = (4, 8, 16)
_LAST_REDUCTION = 32


def parse_entry(stem: str, name: str) -> Entry:
    """Where tokens enter: ``auto``, ``up`` or ``later``.

    Raises:
        UsageError: it is something else.
    """
    if stem in _ENTRIES:
        return _ENTRIES[stem]
    raise UsageError(
        f"stem is {stem!r}, but {name!r} has stages of several resolutions; its stem is auto, up, "
        "later or none"
    )


def pixels_per_token(grid: tuple[int, int]) -> int:
    """Side of the square of pixels that a token stands for: 4, 8 or 16, 8 for 28×28 tokens."""
    side = math.sqrt(_PIXELS / (grid[0] * grid[1]))
    return min(_PIXELS_PER_TOKEN, key=lambda pixels: abs(math.log2(side / pixels)))


@dataclass(frozen=True)
class Plan:
    """How tokens enter a backbone.

    Attributes:
        name: the model's.
        settings: what `timm.create_model` is told, ``in_chans`` among it.
        hierarchy: what was measured.
        entry: where tokens come in.
        grid: rows and columns of tokens.
        picture: rows and columns of the pixels that the grid stands for.
    """

    name: str
    settings: Mapping[str, Any]
    hierarchy: Hierarchy
    entry: Entry
    grid: tuple[int, int]
    picture: tuple[int, int]

    def make(self) -> nn.Module:
        """The model of timm with an adaptor in the place of its stem.

        Raises:
            UsageError: the settings do not fit it, or there is no such entry.
        """
        model = instantiate(self.name, self.settings)
        channels = self.settings["in_chans"]
        enter(model, self.hierarchy, entry=self.entry, channels=channels, grid=self.grid)
        embed: Any = getattr(model, "patch_embed", None)
        if hasattr(embed, "img_size"):
            # What the embedding checks its input against.
            embed.img_size, embed.patch_size = self.grid, (1, 1)
        return model

    def guard(self, model: nn.Module) -> None:
        """Let a model fail whose last features have another size than those of the picture."""
        last = self.hierarchy.stages[-1]

        def check(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found = size_and_dim(output.shape, self.picture)
            if found is None or found[0] != last.output_size:
                raise ValueError(
                    f"its last features are {tuple(output.shape[1:])}, not {last.output_size} with "
                    f"{last.output_dim} channels"
                )

        model.get_submodule(last.name).register_forward_hook(check)


def plan_pyramid(
    name: str,
    settings: Mapping[str, Any],
    *,
    original: nn.Module,
    entry: Entry,
    grid: tuple[int, int],
) -> Plan:
    """Measure a backbone on the picture that a grid stands for.

    Args:
        name: the model's.
        settings: what `timm.create_model` is told, ``in_chans`` among it.
        original: a sketch of it.
        entry: where tokens come in.
        grid: rows and columns of tokens.

    Raises:
        UsageError: the settings do not fit it, or it has no stages.
    """
    side = pixels_per_token(grid)
    picture = (grid[0] * side, grid[1] * side)
    settings = {**settings, **_size_settings(original, picture)}
    hierarchy = measure(sketch(name, {**settings, "in_chans": 3}), name, picture)
    return Plan(name, settings, hierarchy, entry, grid, picture)


def _size_settings(model: nn.Module, picture: tuple[int, int]) -> dict[str, Any]:
    """How a model that must know the picture's size is told.

    Windows of pictures that the last stage does not divide evenly are masked as they come.
    """
    if not takes(model, "img_size"):
        return {}
    if all(side % _LAST_REDUCTION == 0 for side in picture) or not takes(model, "strict_img_size"):
        return {"img_size": picture}
    rounded = tuple(math.ceil(side / _LAST_REDUCTION) * _LAST_REDUCTION for side in picture)
    return {"img_size": rounded, "strict_img_size": False}
