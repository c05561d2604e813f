"""Places of tuning modules: blocks of attention and MLP, or residual blocks of convolutions.

Those of timm are recognized by structure and timm's names of parts, not by the model's class; those
of speech models are listed in `seit.tokenizers.LAYOUTS`.

Legend: B batch, N tokens, D model dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from torch import nn

from seit.errors import UsageError
from seit.tokenizers import SpeechNetwork

Named = tuple[str, nn.Module]
_CALLS_ITS_LINEARS = (Attention, WindowAttention)
"""Attention classes that call ``qkv`` and ``proj`` as modules; others multiply by their weights,
so that a module on them would have no effect."""
_SPEECH_ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "proj": "out_proj"}


@dataclass(frozen=True)
class Block:
    """Transformer block, and the paths of its parts in it.

    Attributes:
        name: its name in the model.
        module: the block.
        attention: path of its attention.
        mlp: path of the module whose output is that of its MLP.
        last: path of the last layer of its MLP.
        linears: path of the linear layer of each target of `TuningConfig`.
        is_fused: whether q, k and v are thirds of one layer.
        multiplies_weights: whether attention multiplies by the weights of its layers instead of
            calling them, so that a hook on such a layer has no effect.
    """

    name: str
    module: nn.Module
    attention: str = "attn"
    mlp: str = "mlp"
    last: str = "mlp.fc2"
    linears: Mapping[str, str] = field(default_factory=dict)
    is_fused: bool = True
    multiplies_weights: bool = False


def transformer_blocks(model: nn.Module) -> list[Block]:
    """Return blocks of attention and MLP, in order, flattened over stages."""
    found = [
        _speech_block(f"{name}.model.{network.layout.blocks}.{index}".lstrip("."), block, network)
        for name, network in model.named_modules()
        if isinstance(network, SpeechNetwork)
        for index, block in enumerate(network.blocks)
    ]
    return found or [
        _timm_block(name, module)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "attn", None), nn.Module)
        and isinstance(getattr(module, "mlp", None), nn.Module)
    ]


def _timm_block(name: str, module: nn.Module) -> Block:
    linears = {"fc1": "mlp.fc1", "fc2": "mlp.fc2", "proj": "attn.proj"}
    linears |= dict.fromkeys(("q", "k", "v", "qkv"), "attn.qkv")
    calls = isinstance(module.attn, _CALLS_ITS_LINEARS)
    return Block(name, module, linears=linears, multiplies_weights=not calls)


def _speech_block(name: str, module: nn.Module, network: SpeechNetwork) -> Block:
    layout = network.layout
    linears = {key: f"{layout.attention}.{part}" for key, part in _SPEECH_ATTENTION.items()}
    linears |= {"fc1": layout.hidden, "fc2": layout.last}
    return Block(
        name,
        module,
        attention=layout.attention,
        mlp=layout.last.rpartition(".")[0] or layout.last,
        last=layout.last,
        linears=linears,
        is_fused=False,
        multiplies_weights=layout.multiplies_weights,
    )


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


Kind = TypeVar("Kind", Block, Named)


def first_blocks(blocks: Sequence[Kind], num_blocks: int | None, model: nn.Module) -> list[Kind]:
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


def find_linear(block: Block, target: str) -> tuple[str, nn.Linear]:
    """Return the layer of a block that a target such as ``v`` or ``fc1`` refers to, with its name.

    Raises:
        UsageError: the block has no such layer that a module could act on.
    """
    path = block.linears.get(target, target)
    try:
        linear: Any = block.module.get_submodule(path)
    except AttributeError:
        linear = None
    acts = not (block.is_fused and block.multiplies_weights and path.startswith("attn."))
    if type(linear) is not nn.Linear or not acts:
        raise UsageError(
            f"tuning.targets names {target}, but {block.name} ({type(block.module).__name__}) has "
            f"no layer {path} that it could act on; choose other targets or a plain ViT"
        )
    return f"{block.name}.{path}", linear


def find_attention(block: Block) -> Any:
    """Return the attention of a block, of timm's plain class or of a speech model.

    Raises:
        UsageError: it is of another class.
    """
    attention = block.module.get_submodule(block.attention)
    if block.is_fused and type(attention) is not Attention:
        raise UsageError(
            f"prefixes go to timm's plain attention, and {block.name}.attn is a "
            f"{type(attention).__name__}; choose a plain ViT or another method"
        )
    return attention


def dim_of_attention(block: Block) -> int:
    """Return the input width D of a block's attention, which takes and returns one tensor.

    Raises:
        UsageError: its first layer does not have a known width, or it returns more.
    """
    attention: Any = block.module.get_submodule(block.attention)
    if not block.is_fused:
        raise UsageError(
            f"adapter runs parallel to timm's attention, and {block.name}.{block.attention} is a "
            f"{type(attention).__name__}; choose houlsby or another method"
        )
    first = next((one for one in attention.modules() if isinstance(one, nn.Linear)), None)
    if first is None:
        raise UsageError(
            f"{block.name}.attn has no linear layers; choose a plain ViT or another method"
        )
    return first.in_features


def dims_of_mlp(block: Block) -> tuple[str, int, int]:
    """Return name, inputs and outputs of the last layer of a block's MLP.

    Raises:
        UsageError: it has no such layer.
    """
    try:
        last = block.module.get_submodule(block.last)
    except AttributeError:
        last = None
    if not isinstance(last, nn.Linear):
        mlp = type(block.module.get_submodule(block.mlp)).__name__
        raise UsageError(
            f"{block.name}.{block.mlp} is a {mlp} without fc2, which this method follows; "
            "choose a plain ViT or another method"
        )
    return f"{block.name}.{block.last}", last.in_features, last.out_features


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
