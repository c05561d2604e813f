"""Parts of a ViT to keep: chosen ones with their weights, or the first ones of a fresh ViT.

Legend: D model dim, H heads of a block, U units of its MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from timm.layers import Attention
from timm.models import VisionTransformer
from torch import Tensor, nn

from seit.models.compression.structure import (
    BlockSize,
    Structure,
    blocks_of,
    patch_projection,
    plain_vit,
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Parts of a ViT to keep, as ascending numbers.

    Attributes:
        dims: dimensions of the model.
        blocks: blocks.
        heads: heads of each kept block.
        units: MLP units of each kept block.
    """

    dims: Sequence[int]
    blocks: Sequence[int]
    heads: Sequence[Sequence[int]]
    units: Sequence[Sequence[int]]

    @classmethod
    def first_of(cls, structure: Structure) -> Self:
        """Select the first heads, units and dimensions."""
        return cls(
            dims=range(structure.width),
            blocks=structure.kept,
            heads=[range(size.heads) for size in structure.blocks],
            units=[range(size.units) for size in structure.blocks],
        )

    @property
    def structure(self) -> Structure:
        """Sizes of what is selected."""
        sizes = zip(self.heads, self.units, strict=True)
        return Structure(
            width=len(self.dims),
            kept=tuple(self.blocks),
            blocks=tuple(BlockSize(heads=len(h), units=len(u)) for h, u in sizes),
        )


def cut(model: nn.Module, structure: Structure, *, origin: str) -> None:
    """Cut a freshly built ViT to a structure from a file, in place.

    Raises:
        UsageError: the model is not a plain ViT.
        DamagedError: the structure is no part of it.
    """
    structure.check(Structure.of(model), origin=origin)
    select(model, Selection.first_of(structure))


def select(model: nn.Module, selection: Selection) -> None:
    """Keep the selected parts of a ViT with their weights, in place.

    Heads and units whose outgoing weights are zero leave without a trace; dimensions do not, as
    norms are over all of them.

    Raises:
        UsageError: the model is not a plain ViT.
    """
    vit = plain_vit(model)
    _keep_blocks(vit, selection.blocks)
    for block, heads, units in zip(blocks_of(vit), selection.heads, selection.units, strict=True):
        _keep_heads(block.attn, heads)
        _narrow(block.mlp.fc1, units, 0)
        _narrow(block.mlp.fc2, units, 1)
    _keep_dims(vit, selection.dims)


def _keep_blocks(vit: VisionTransformer, kept: Sequence[int]) -> None:
    vit.blocks = nn.Sequential(*(vit.blocks[number] for number in kept))
    for number, entry in enumerate(vit.feature_info[: len(kept)]):
        entry["module"] = f"blocks.{number}"
    del vit.feature_info[len(kept) :]


def _keep_heads(attention: Attention, heads: Sequence[int]) -> None:
    dim, width = attention.head_dim, attention.attn_dim
    inner = [head * dim + one for head in heads for one in range(dim)]
    _narrow(attention.qkv, [part * width + one for part in range(3) for one in inner], 0)
    _narrow(attention.proj, inner, 1)
    attention.num_heads, attention.attn_dim = len(heads), len(inner)


def _keep_dims(vit: Any, dims: Sequence[int]) -> None:
    if len(dims) == vit.embed_dim:
        return
    _narrow(patch_projection(vit), dims, 0)
    _narrow_norm(vit.patch_embed.norm, dims)
    for key in ("cls_token", "reg_token", "pos_embed"):
        if getattr(vit, key) is not None:
            setattr(vit, key, _kept(getattr(vit, key), dims, 2))
    for block in blocks_of(vit):
        for norm in (block.norm1, block.norm2):
            _narrow_norm(norm, dims)
        for layer, axis in (
            (block.attn.qkv, 1),
            (block.attn.proj, 0),
            (block.mlp.fc1, 1),
            (block.mlp.fc2, 0),
        ):
            _narrow(layer, dims, axis)
        for scale in (block.ls1, block.ls2):
            if not isinstance(scale, nn.Identity):
                scale.gamma = _kept(scale.gamma, dims, 0)
    for norm in (vit.norm_pre, vit.norm, vit.fc_norm):
        _narrow_norm(norm, dims)
    if isinstance(vit.head, nn.Linear):
        _narrow(vit.head, dims, 1)
    vit.embed_dim = vit.num_features = vit.head_hidden_size = len(dims)
    for entry in vit.feature_info:
        entry["num_chs"] = len(dims)


def _narrow(layer: nn.Module, kept: Sequence[int], axis: int) -> None:
    """Keep some outputs (``axis`` 0) or inputs (1) of a linear layer or convolution."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    layer.weight = _kept(layer.weight, kept, axis)
    if axis == 0 and layer.bias is not None:
        layer.bias = _kept(layer.bias, kept, 0)
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = outputs, inputs
    else:
        layer.out_channels, layer.in_channels = outputs, inputs


def _narrow_norm(norm: Any, kept: Sequence[int]) -> None:
    for key, values in list(norm.named_parameters(recurse=False)):
        setattr(norm, key, _kept(values, kept, 0))
    if hasattr(norm, "normalized_shape"):
        norm.normalized_shape = (len(kept),)


def _kept(values: Tensor, kept: Sequence[int], axis: int) -> nn.Parameter:
    index = torch.tensor(list(kept), device=values.device)
    chosen = values.detach().index_select(axis, index)
    return nn.Parameter(chosen, requires_grad=values.requires_grad)
