"""Measurement of the stem and the stages of a hierarchical backbone.

timm's ``feature_info`` names the stages. A forward pass on the meta device, which computes nothing,
records their inputs and the modules that run before the first stage.

Legend: B batch.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seit.errors import UsageError
from seit.models.timm_models import BUILD_ERRORS


@dataclass(frozen=True)
class Flow:
    """Input and output shapes of a module.

    Attributes:
        name: name of the module.
        input_size: rows and columns of the input.
        input_dim: channels of the input.
        output_size: rows and columns of the output.
        output_dim: channels of the output.
    """

    name: str
    input_size: tuple[int, int]
    input_dim: int
    output_size: tuple[int, int]
    output_dim: int


@dataclass(frozen=True)
class Hierarchy:
    """Stem and stages of a backbone, measured on a picture.

    Attributes:
        stem: names of the modules that run before the first stage, in call order.
        resizing: modules of the stem that change the size.
        stages: the stages, in order.
    """

    stem: tuple[str, ...]
    resizing: frozenset[str]
    stages: tuple[Flow, ...]


def feature_entries(model: nn.Module) -> list[dict[str, Any]]:
    """Return timm's ``feature_info``: module, reduction and channels of each feature map."""
    info = getattr(model, "feature_info", None) or []
    return list(getattr(info, "info", info))


def measure(sketch: nn.Module, name: str, size: tuple[int, int]) -> Hierarchy:
    """Measure a backbone of three input channels on the meta device.

    Args:
        sketch: the backbone.
        name: name of the model, for messages.
        size: rows and columns of the picture.

    Raises:
        UsageError: it has no stages, or does not run on such a picture.
    """
    names = _stage_names(sketch)
    if len(names) < 2:
        raise UsageError(
            f"{name!r} ({type(sketch).__name__}) has no stages that timm's feature_info names; "
            "tokens enter ViTs, and backbones like ResNet, ConvNeXt, RegNet, EfficientNet and Swin"
        )
    called: list[str] = []
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}
    modules = {key: module for key, module in sketch.named_modules() if key}

    def note_call(key: str) -> Any:
        return lambda *_: called.append(key)

    def note_shapes(key: str) -> Any:
        def hook(_module: nn.Module, inputs: Any, output: Any) -> None:
            if inputs and all(isinstance(x, torch.Tensor) for x in (inputs[0], output)):
                shapes[key] = inputs[0].shape, output.shape

        return hook

    handles = [module.register_forward_pre_hook(note_call(key)) for key, module in modules.items()]
    handles += [module.register_forward_hook(note_shapes(key)) for key, module in modules.items()]
    try:
        sketch(torch.zeros(2, 3, *size, device="meta"))
    except BUILD_ERRORS as error:
        raise UsageError(
            f"{name!r} ({type(sketch).__name__}) does not run on {size[0]}×{size[1]} pixels "
            f"({' '.join(str(error).split())}); choose another backbone"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    flows = [_flow(key, *shapes[key], picture=size) if key in shapes else None for key in names]
    if None in flows:
        raise UsageError(
            f"the stages {names[0]} … {names[-1]} of {name!r} ({type(sketch).__name__}) do not "
            "hand on one feature map each; choose a backbone like ResNet, ConvNeXt or Swin"
        )
    stem = [key for key in called[: called.index(names[0])] if not names[0].startswith(f"{key}.")]
    return Hierarchy(
        stem=tuple(dict.fromkeys(stem)),
        resizing=frozenset(
            key for key in stem if key in shapes and shapes[key][0][2:] != shapes[key][1][2:]
        ),
        stages=tuple(flow for flow in flows if flow is not None),
    )


def _stage_names(model: nn.Module) -> list[str]:
    """Return the names of modules numbered like most of ``feature_info``'s."""
    trunks = Counter(
        match[1]
        for entry in feature_entries(model)
        if (match := re.fullmatch(r"(.*\D)\d+", entry["module"]))
    )
    if not trunks:
        return []
    trunk = trunks.most_common(1)[0][0]
    return [key for key, _ in model.named_modules() if re.fullmatch(re.escape(trunk) + r"\d+", key)]


def _flow(
    key: str, before: torch.Size, after: torch.Size, *, picture: tuple[int, int]
) -> Flow | None:
    come_in, go_out = size_and_dim(before, picture), size_and_dim(after, picture)
    return Flow(key, *come_in, *go_out) if come_in and go_out else None


def size_and_dim(shape: torch.Size, picture: tuple[int, int]) -> tuple[tuple[int, int], int] | None:
    """Return (rows, columns) and channels of (B, D, rows, columns) or (B, rows, columns, D).

    Args:
        shape: shape of the features.
        picture: rows and columns of the picture; features are reduced equally along both.
    """
    if len(shape) != 4:
        return None
    _, first, second, third = shape
    for rows, columns, dim in ((second, third, first), (first, second, third)):
        reduction = round(picture[1] / columns)
        sides = zip((rows, columns), picture, strict=True)
        if all(abs(side * reduction - pixels) < reduction for side, pixels in sides):
            return (rows, columns), dim
    return None
