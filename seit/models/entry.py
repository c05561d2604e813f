"""Replacement of a hierarchical backbone's stem by an adaptor for tokens.

A network such as ResNet sees 224×224 pixels as 56×56 features in its first stage and as 28×28 in
its second. A grid of 28×28 tokens can enter at both places:

* ``up``: a transposed convolution enlarges the grid to the input size of the first stage.
* ``later``: a convolution feeds the grid to the first stage with outputs of the grid's size. The
  stages before it are removed, and it no longer reduces the resolution itself.

The adaptor takes the place and the name of the stem's last convolution. Norms and activations
after it stay; convolutions before it, and pooling, become identities.

Legend: B batch, C codebook dim, h w grid, D channels of the stage.
"""

from typing import Any, Literal

import torch
from torch import nn

from seit.errors import UsageError
from seit.models.hierarchy import Flow, Hierarchy
from seit.models.stem import Stem, initialized

Entry = Literal["up", "later"]


def enter(
    model: nn.Module, hierarchy: Hierarchy, *, entry: Entry, channels: int, grid: tuple[int, int]
) -> None:
    """Make a backbone take tokens (B, ``channels``, *``grid``), in place.

    Args:
        model: a timm model.
        hierarchy: measured on a picture of the size that the grid stands for.
        entry: place where tokens enter.
        channels: C, channels of the embedded tokens.
        grid: rows and columns of tokens.

    Raises:
        UsageError: the backbone has no such place.
    """
    convolutions = [key for key in hierarchy.stem if _is_convolution(model.get_submodule(key))]
    if not convolutions:
        raise UsageError(
            f"the stem of a {type(model).__name__} has no convolution that an adaptor could "
            "replace; choose a backbone like ResNet, ConvNeXt or Swin"
        )
    if entry == "up":
        stage = hierarchy.stages[0]
        dim = _output_dim(model.get_submodule(convolutions[-1]))
        adaptor = _upsampling(channels, dim, _factor(stage, grid, model))
    else:
        stage = _stage_of_size(hierarchy, grid, model)
        dim = _keep_resolution(model.get_submodule(stage.name), stage)
        adaptor = Stem(3, 1, 1).convolution(channels, dim)
        for earlier in hierarchy.stages[: hierarchy.stages.index(stage)]:
            model.set_submodule(earlier.name, nn.Identity())
    _replace_stem(model, hierarchy, convolutions[-1], adaptor, dim)


def _factor(stage: Flow, grid: tuple[int, int], model: nn.Module) -> int:
    """Return the ratio of the first stage's input to the grid."""
    factor = stage.input_size[0] // grid[0]
    if (
        stage.input_size != (grid[0] * factor, grid[1] * factor)
        or factor < 1
        or factor & factor - 1
    ):
        raise UsageError(
            f"the first stage of a {type(model).__name__} wants features of "
            f"{stage.input_size[0]}×{stage.input_size[1]}, and a grid of {grid[0]}×{grid[1]} "
            "cannot be brought there by doubling; choose another backbone"
        )
    return factor


def _upsampling(channels: int, dim: int, factor: int) -> nn.Module:
    """Return a transposed convolution (B, C, h, w) → (B, D, factor · h, factor · w).

    ``factor`` is a power of 2. Adjacent windows overlap by half. Weights start with variance
    1 / fan-in, biases at 0.
    """
    if factor == 1:
        return Stem(3, 1, 1).convolution(channels, dim)
    adaptor = nn.ConvTranspose2d(channels, dim, 2 * factor, factor, factor // 2)
    return initialized(adaptor, fan_in=4 * channels)


def _stage_of_size(hierarchy: Hierarchy, grid: tuple[int, int], model: nn.Module) -> Flow:
    for stage in hierarchy.stages:
        if stage.output_size == grid:
            return stage
    sizes = ", ".join(f"{rows}×{columns}" for rows, columns in _output_sizes(hierarchy))
    raise UsageError(
        f"no stage of a {type(model).__name__} works at the {grid[0]}×{grid[1]} of the grid, but "
        f"at {sizes}; use the stem up"
    )


def _output_sizes(hierarchy: Hierarchy) -> list[tuple[int, int]]:
    return list(dict.fromkeys(stage.output_size for stage in hierarchy.stages))


def _keep_resolution(module: nn.Module, stage: Flow) -> int:
    """Remove the reduction from a stage, and return its new input channels."""
    if stage.input_size == stage.output_size:
        return stage.input_dim
    first = getattr(module, "downsample", None)
    if isinstance(first, nn.Module) and not isinstance(first, nn.Identity):
        module.set_submodule("downsample", nn.Identity())
        return stage.output_dim
    for key, part in list(module.named_modules()):
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)
        elif getattr(part, "stride", 1) not in (1, (1, 1)) and not list(part.children()):
            module.set_submodule(key, nn.Identity())  # pooling
    return stage.input_dim


def _replace_stem(
    model: nn.Module, hierarchy: Hierarchy, last: str, adaptor: nn.Module, dim: int
) -> None:
    """Replace the convolution ``last`` by the adaptor."""
    old_dim = _output_dim(model.get_submodule(last))
    place = hierarchy.stem.index(last)
    model.set_submodule(last, adaptor)
    gone: list[str] = []
    for index, key in enumerate(hierarchy.stem):
        if last == key or last.startswith(f"{key}.") or key.startswith(tuple(gone)):
            continue
        if index < place or key in hierarchy.resizing:
            model.set_submodule(key, nn.Identity())
            gone.append(f"{key}.")
        elif dim != old_dim:
            _resize_norm(model.get_submodule(key), old_dim, dim)


@torch.no_grad()
def _resize_norm(module: nn.Module, old_dim: int, dim: int) -> None:
    """Resize a norm from ``old_dim`` to ``dim`` channels; keep other modules."""
    for key, weights in list(module.named_parameters(recurse=False)):
        if weights.shape == (old_dim,):
            module.register_parameter(key, nn.Parameter(weights[:1].repeat(dim)))
    for key, values in list(module.named_buffers(recurse=False)):
        if values.shape == (old_dim,):
            module.register_buffer(key, values[:1].repeat(dim))
    widths: dict[str, Any] = {"num_features": dim, "normalized_shape": (dim,)}
    for key in widths.keys() & vars(module).keys():
        setattr(module, key, widths[key])


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _output_dim(module: nn.Module) -> int:
    assert isinstance(module, nn.Conv2d)
    return module.out_channels
