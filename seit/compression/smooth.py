"""SmoothQuant: outlier channels of activations moved into the weights, before quantization.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", arXiv 2211.10438. A channel j of a LayerNorm's output is divided by t_j, and the weights
that read it are multiplied by it: in float the network stays the same.

Legend: C channels, O outputs.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from timm.layers import ConvMlp, Mlp
from timm.models.convnext import ConvNeXtBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

OUTLIER_RATIO = 10.0
"""Largest channel maximum, relative to the median one, from which smoothing is worth it."""

_READERS: Mapping[type[nn.Module], Mapping[str, str]] = {
    Block: {"norm1": "attn.qkv", "norm2": "mlp.fc1"},
    SwinTransformerBlock: {"norm1": "attn.qkv", "norm2": "mlp.fc1"},
    ConvNeXtBlock: {"norm": "mlp.fc1"},
}
"""The only layer that reads the output of a norm, by class of block."""


@dataclass(frozen=True)
class Fold:
    """LayerNorm and the only layer that reads its output.

    Attributes:
        norm: name of the norm in the network.
        reader: name of the linear layer or 1 × 1 convolution.
    """

    norm: str
    reader: str


def folds(model: nn.Module) -> Iterator[Fold]:
    """Yield the LayerNorms of a network into which scales can be folded, in order."""
    for name, block in model.named_modules():
        for norm, reader in _READERS.get(type(block), {}).items():
            if _fits(block, norm, reader):
                yield Fold(f"{name}.{norm}", f"{name}.{reader}")


def _fits(block: nn.Module, norm: str, reader: str) -> bool:
    holder, _, last = reader.rpartition(".")
    parent = block.get_submodule(holder)
    found = getattr(block, norm), getattr(parent, last, None)
    is_plain = last != "fc1" or type(parent) in (Mlp, ConvMlp)  # gated ones have a second reader
    return (
        isinstance(found[0], nn.LayerNorm)
        and found[0].elementwise_affine
        and (isinstance(found[1], nn.Linear) or _is_pointwise(found[1]))
        and is_plain
    )


def _is_pointwise(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def channel_maxima(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the largest magnitude of each input channel of the layers that `smooth` changes.

    Args:
        model: a network in evaluation mode.
        batches: its inputs.

    Returns:
        float32 (C,) by the layer's name.
    """
    maxima: dict[str, Tensor] = {}

    def note(name: str, inputs: Tensor) -> None:
        last = inputs.movedim(1, -1) if _is_pointwise(model.get_submodule(name)) else inputs
        found = last.detach().float().abs().reshape(-1, last.shape[-1]).amax(0)
        maxima[name] = torch.maximum(maxima[name], found) if name in maxima else found

    with ExitStack() as stack, torch.no_grad():
        for fold in folds(model):
            handle = model.get_submodule(fold.reader).register_forward_pre_hook(
                lambda _, args, name=fold.reader: note(name, args[0])
            )
            stack.callback(handle.remove)
        for inputs in batches:
            model(inputs)
    return maxima


def outlier_ratios(channel_maxima: Mapping[str, Tensor]) -> dict[str, float]:
    """Return by layer the largest channel maximum relative to the median one.

    A ratio of k costs a grid over the whole tensor log2 k of its bits.
    """
    return {
        name: float(maxima.max() / maxima.median().clamp(min=torch.finfo(torch.float32).tiny))
        for name, maxima in channel_maxima.items()
    }


def has_outliers(channel_maxima: Mapping[str, Tensor], *, ratio: float = OUTLIER_RATIO) -> bool:
    """Return whether any layer has an outlier channel, so that `smooth` is worth it."""
    return any(found > ratio for found in outlier_ratios(channel_maxima).values())


def smooth(
    model: nn.Module, channel_maxima: Mapping[str, Tensor], *, alpha: float = 0.5
) -> nn.Module:
    """Return a copy of a network with smoother inputs of its linear layers behind LayerNorms.

    It computes the same, up to rounding in float32: t_j = max|X_j|^α / max|W_j|^(1−α) divides
    channel j of the norm's weight and bias, and multiplies column j of the layer's weight.

    Args:
        model: a network; that of a vision transformer, Swin or ConvNeXt has layers to smooth.
        channel_maxima: max|X_j| (C,) by the layer's name, as :func:`channel_maxima` returns it.
            Other layers stay as they are.
        alpha: share of the difficulty that moves from activations to weights, 0–1.
    """
    changed = copy.deepcopy(model)
    for fold in folds(changed):
        maxima = channel_maxima.get(fold.reader)
        if maxima is not None:
            _fold(
                changed.get_submodule(fold.norm), changed.get_submodule(fold.reader), maxima, alpha
            )
    return changed


@torch.no_grad()
def _fold(norm: nn.Module, reader: nn.Module, maxima: Tensor, alpha: float) -> None:
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(reader, nn.Linear | nn.Conv2d)
    weight = reader.weight.flatten(1)  # (O, C)
    of_weight = weight.abs().amax(0).double()
    scale = maxima.to(of_weight).pow(alpha) / of_weight.pow(1 - alpha)
    known = (maxima.to(of_weight) > 0) & (of_weight > 0) & scale.isfinite()
    scale = torch.where(known, scale, 1.0)
    for one in (norm.weight, norm.bias):
        if one is not None:
            one.copy_(one.double() / scale)
    weight.copy_(weight.double() * scale)
