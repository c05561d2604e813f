"""Layers of timm backbones, and their activations as grids.

Legend: B batch, D features, h w grid of a layer, L tokens of a ViT, P of them before the patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import Tensor, nn

from seit.errors import UsageError

TOKENS = "tokens"
"""Name of the network's input: the vectors of the codes."""
STEM = "stem"


@dataclass(frozen=True)
class TimmLayers:
    """Modules to read.

    Attributes:
        outputs: module whose output is a layer, by layer name.
        inputs: module whose input is a layer, by layer name.
        prefix: P.
        channels_last: whether grids are (B, h, w, D), as those of Swin transformers.
    """

    outputs: dict[str, str]
    inputs: dict[str, str]
    prefix: int = 0
    channels_last: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, from the input to the output."""
        return (*self.inputs, *self.outputs)

    def grid(self, layer: str, value: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return an activation as (B, h, w, D).

        Args:
            layer: its layer.
            value: (B, L, D), (B, D, h, w), (B, h, w, D), or (B, D) of one position.
            shape: rows and columns of the network's input, whose ratio a sequence keeps.

        Raises:
            UsageError: it has another shape.
        """
        if value.ndim == 2:
            return value[:, None, None]
        if value.ndim == 3:
            patches = value[:, self.prefix :]
            rows = _rows(patches.shape[1], shape)
            return patches.reshape(len(patches), rows, -1, patches.shape[2])
        if value.ndim == 4:
            return value if self.channels_last else value.permute(0, 2, 3, 1)
        raise UsageError(
            f"the layer {layer} has activations of shape {tuple(value.shape)}, which are neither "
            "those of a sequence of patches nor of a grid"
        )


def timm_layers(model: nn.Module, paths: Sequence[str] | None = None) -> TimmLayers:
    """Return the layers of a timm backbone: blocks of a ViT, stages of other networks.

    Args:
        model: the network.
        paths: layers to choose, by these names or by the path of any module; None for all.

    Raises:
        UsageError: the network has neither, or no such module.
    """
    found = _usual_layers(model)
    if paths is None:
        return found
    modules = dict(model.named_modules())
    for path in paths:
        if path not in modules and path not in found.names:
            near = get_close_matches(path, [*found.names, *modules], n=3)
            hint = f"; near names: {', '.join(near)}" if near else ""
            raise UsageError(f"{type(model).__name__} has no module {path!r}{hint}")
    return replace(
        found,
        inputs={path: found.inputs[path] for path in paths if path in found.inputs},
        outputs={path: found.outputs.get(path, path) for path in paths if path not in found.inputs},
    )


def _usual_layers(model: nn.Module) -> TimmLayers:
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and hasattr(model, "num_prefix_tokens"):
        outputs = {f"blocks.{index}": f"blocks.{index}" for index in range(len(blocks))}
        if isinstance(getattr(model, "norm", None), nn.LayerNorm):
            outputs["norm"] = "norm"
        return TimmLayers(
            outputs=outputs,
            inputs={STEM: "blocks.0"},
            prefix=int(model.num_prefix_tokens),  # type: ignore[arg-type]
        )
    stages = getattr(model, "feature_info", None)
    if not isinstance(stages, list) or not stages:
        raise UsageError(
            f"{type(model).__name__} has neither blocks nor stages that timm names; analyze a ViT "
            "or a CNN of timm"
        )
    return TimmLayers(
        outputs={stage["module"]: stage["module"] for stage in stages},
        inputs={},
        channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
    )


def _rows(patches: int, shape: tuple[int, int]) -> int:
    """Return the rows of a grid of patches with the ratio of the input's sides."""
    rows = max(1, round(math.sqrt(patches * shape[0] / shape[1])))
    while patches % rows:
        rows -= 1
    return rows
