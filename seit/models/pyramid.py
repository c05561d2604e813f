"""Hierarchical backbones over tokens: ResNet, ConvNeXt, RegNet, EfficientNet, Swin, ….

A grid of tokens stands for a picture of about 224×224 pixels: 28×28 tokens for 8×8 pixels each.
The backbone is built for that picture, and tokens enter where its features have their resolution.

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
"""Entry of each name; docs/backbones.md justifies ``auto``."""

_PIXELS = 224 * 224
_PIXELS_PER_TOKEN = (4, 8, 16)
_LAST_REDUCTION = 32


def parse_entry(stem: str, name: str) -> Entry:
    """Parse the entry of tokens: ``auto``, ``up`` or ``later``.

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
    """Return the side in pixels of the square per token: 4, 8 or 16; 8 for 28×28 tokens."""
    side = math.sqrt(_PIXELS / (grid[0] * grid[1]))
    return min(_PIXELS_PER_TOKEN, key=lambda pixels: abs(math.log2(side / pixels)))


@dataclass(frozen=True)
class Plan:
    """Plan of a backbone over tokens.

    Attributes:
        name: name of the model.
        settings: arguments of `timm.create_model`, including ``in_chans``.
        hierarchy: the measured stem and stages.
        entry: place where tokens enter.
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
        """Build the timm model with an adaptor instead of its stem.

        Raises:
            UsageError: the settings are invalid, or it has no such entry.
        """
        model = instantiate(self.name, self.settings)
        channels = self.settings["in_chans"]
        enter(model, self.hierarchy, entry=self.entry, channels=channels, grid=self.grid)
        embed: Any = getattr(model, "patch_embed", None)
        if hasattr(embed, "img_size"):
            # The embedding checks its input against this.
            embed.img_size, embed.patch_size = self.grid, (1, 1)
        return model

    def guard(self, model: nn.Module) -> None:
        """Raise if the last features differ in size from those of the picture."""
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
        name: name of the model.
        settings: arguments of `timm.create_model`, including ``in_chans``.
        original: a sketch of the model.
        entry: place where tokens enter.
        grid: rows and columns of tokens.

    Raises:
        UsageError: the settings are invalid, or it has no stages.
    """
    side = pixels_per_token(grid)
    picture = (grid[0] * side, grid[1] * side)
    settings = {**settings, **_size_settings(original, picture)}
    hierarchy = measure(sketch(name, {**settings, "in_chans": 3}), name, picture)
    return Plan(name, settings, hierarchy, entry, grid, picture)


def _size_settings(model: nn.Module, picture: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments that set a model's picture size.

    Windows are padded and masked if the last stage does not divide the picture evenly.
    """
    if not takes(model, "img_size"):
        return {}
    if all(side % _LAST_REDUCTION == 0 for side in picture) or not takes(model, "strict_img_size"):
        return {"img_size": picture}
    rounded = tuple(math.ceil(side / _LAST_REDUCTION) * _LAST_REDUCTION for side in picture)
    return {"img_size": rounded, "strict_img_size": False}
