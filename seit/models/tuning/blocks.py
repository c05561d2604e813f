"""Places of tuning modules: blocks of attention and MLP, or residual blocks of convolutions.

They are recognized by structure and timm's names of parts, not by the model's class.

Legend: B batch, N tokens, D model dim.
"""

from collections.abc import Sequence
from typing import Any

from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from torch import nn

from seit.errors import UsageError

Named = tuple[str, nn.Module]
_CALLS_ITS_LINEARS = (Attention, WindowAttention)
"""Attention classes that call ``qkv`` and ``proj`` as modules; others multiply by their weights,
so that a module on them would have no effect."""


def transformer_blocks(model: nn.Module) -> list[Named]:
    """Return blocks with ``attn`` and ``mlp``, in order, flattened over stages."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "attn", None), nn.Module)
        and isinstance(getattr(module, "mlp", None), nn.Module)
    ]


def residual_blocks(model: nn.Module) -> list[Named]:
    """Return residual blocks over feature maps that keep their shape, in order.

    timm's have stochastic depth and therefore a ``drop_path``; those that change the resolution
    have a strided layer, or a ``downsample`` or ``shortcut`` with weights.
    """
    found = [(name, module) for name, module in model.named_modules() if _is_residual(module)]
    return [
        (name, module)
        for name, module in found
        if not any(other.startswith(f"{name}.") for other, _ in found) and _keeps_shape(module)
    ]


def first_blocks(blocks: Sequence[Named], num_blocks: int | None, model: nn.Module) -> list[Named]:
    """Return the first ``num_blocks`` blocks, or all.

    Raises:
        UsageError: there are fewer, or none.
    """
    if not blocks:
        raise UsageError(
            f"a {type(model).__name__} has no blocks that such a module could go to; choose a ViT, "
            "or another method: bitfit, linear and full fit any backbone, adapter most"
        )
    if num_blocks is not None and num_blocks > len(blocks):
        raise UsageError(
            f"tuning.num_blocks is {num_blocks}, but a {type(model).__name__} has "
            f"{len(blocks)} blocks; choose at most that many"
        )
    return list(blocks[:num_blocks])


def find_linear(block: Named, target: str) -> tuple[str, nn.Linear]:
    """Return the layer of a block that a target such as ``v`` or ``fc1`` refers to, with its name.

    Raises:
        UsageError: the block has no such layer that is called as a module.
    """
    name, module = block
    path = f"mlp.{target}" if target.startswith("fc") else "attn.qkv"
    path = "attn.proj" if target == "proj" else path
    try:
        linear: Any = module.get_submodule(path)
    except AttributeError:
        linear = None
    attends = path.startswith("attn.")
    if type(linear) is not nn.Linear or (attends and not _calls_its_linears(module.attn)):
        raise UsageError(
            f"tuning.targets names {target}, but {name} ({type(module).__name__}) has no layer "
            f"{path} that it could act on; choose other targets or a plain ViT"
        )
    return f"{name}.{path}", linear


def find_attention(block: Named) -> Attention:
    """Return the attention of a block, of timm's plain class.

    Raises:
        UsageError: it is of another class.
    """
    name, module = block
    if type(module.attn) is not Attention:
        raise UsageError(
            f"prefixes go to timm's plain attention, and {name}.attn is a "
            f"{type(module.attn).__name__}; choose a plain ViT or another method"
        )
    return module.attn


def dim_of_attention(block: Named) -> int:
    """Return the input width D of a block's attention.

    Raises:
        UsageError: its first layer does not have a known width.
    """
    name, module = block
    attention: Any = module.attn
    first = next((one for one in attention.modules() if isinstance(one, nn.Linear)), None)
    if first is None:
        raise UsageError(f"{name}.attn has no linear layers; choose a plain ViT or another method")
    return first.in_features


def dims_of_mlp(block: Named) -> tuple[str, int, int]:
    """Return name, inputs and outputs of the last layer of a block's MLP.

    Raises:
        UsageError: it has no ``fc2``.
    """
    name, module = block
    last = getattr(module.mlp, "fc2", None)
    if not isinstance(last, nn.Linear):
        raise UsageError(
            f"{name}.mlp is a {type(module.mlp).__name__} without fc2, which this method follows; "
            "choose a plain ViT or another method"
        )
    return f"{name}.mlp.fc2", last.in_features, last.out_features


def _calls_its_linears(attention: Any) -> bool:
    return isinstance(attention, _CALLS_ITS_LINEARS)


def _is_residual(module: nn.Module) -> bool:
    layers = [one for one in module.modules() if isinstance(one, nn.Conv2d)]
    return hasattr(module, "drop_path") and bool(layers) and getattr(module, "has_skip", True)


def _keeps_shape(module: nn.Module) -> bool:
    layers = [one for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    for key in ("downsample", "shortcut"):
        beside = getattr(module, key, None)
        if isinstance(beside, nn.Module) and list(beside.parameters()):
            return False
    strided = any(getattr(one, "stride", 1) not in (1, (1, 1), None) for one in module.modules())
    return not strided and map_dim(module) == _outputs(layers[-1])


def map_dim(module: nn.Module) -> int:
    """Return the input channels of a convolutional block."""
    first = next(one for one in module.modules() if isinstance(one, nn.Conv2d))
    return first.in_channels


def _outputs(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
