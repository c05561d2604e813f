"""Sizes of smaller ViTs: the blocks, heads, MLP units and dimensions left of a larger one.

A timm ViT has one width and one number of heads for all blocks; what pruning leaves has not.

Legend: D model dim, H heads of a block, U units of its MLP.
"""

from dataclasses import dataclass
from typing import Any, Self

from timm.layers import Attention, Mlp
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import nn

from seit.errors import DamagedError, UsageError


@dataclass(frozen=True, kw_only=True)
class BlockSize:
    """Sizes of a block of a ViT.

    Attributes:
        heads: attention heads, H.
        units: hidden units of the MLP, U.
    """

    heads: int
    units: int


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Sizes of a pruned ViT.

    Attributes:
        width: model dim D.
        kept: numbers of the blocks of the larger ViT that are left, ascending.
        blocks: their sizes, in the same order.
    """

    width: int
    kept: tuple[int, ...]
    blocks: tuple[BlockSize, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Return the structure of a ViT of which nothing was removed.

        Raises:
            UsageError: the model is not a plain ViT.
        """
        vit = plain_vit(model)
        sizes = tuple(
            BlockSize(heads=block.attn.num_heads, units=block.mlp.fc1.out_features)
            for block in blocks_of(vit)
        )
        return cls(width=vit.embed_dim, kept=tuple(range(len(sizes))), blocks=sizes)

    def check(self, whole: "Structure", *, origin: str) -> None:
        """Check that a structure read from a file is a part of another.

        Raises:
            DamagedError: it is not.
        """
        ordered = list(self.kept) == sorted(set(self.kept)) and len(self.kept) == len(self.blocks)
        inside = all(0 <= number < len(whole.blocks) for number in self.kept)
        fits = (
            bool(self.kept)
            and ordered
            and inside
            and 1 <= self.width <= whole.width
            and all(
                1 <= size.heads <= whole.blocks[number].heads
                and 1 <= size.units <= whole.blocks[number].units
                for number, size in zip(self.kept, self.blocks, strict=True)
            )
        )
        if not fits:
            raise DamagedError(
                f"{origin} holds a network of {len(self.blocks)} blocks of width {self.width}, "
                "which is no part of that of its settings; restore it from a copy"
            )


def plain_vit(model: nn.Module) -> VisionTransformer:
    """Return the model itself if it is a ViT that can be cut.

    Raises:
        UsageError: it is not.
    """
    vit: Any = model
    fits = (
        type(vit) is VisionTransformer
        and getattr(vit, "attn_pool", None) is None
        and all(_is_plain(block) for block in blocks_of(vit))
    )
    if not fits:
        raise UsageError(
            f"heads, MLP units, width and depth are those of timm's plain ViTs, not of a "
            f"{type(model).__name__} of this kind; its single weights can be pruned: choose the "
            "pattern unstructured or 2:4"
        )
    assert isinstance(model, VisionTransformer)
    return model


def patch_projection(vit: VisionTransformer) -> nn.Conv2d:
    """Return the convolution of a stem that writes the features of the patches."""
    stem = vit.patch_embed.proj
    last = stem[-1] if isinstance(stem, nn.Sequential) else stem
    assert isinstance(last, nn.Conv2d)
    return last


def _is_plain(block: Any) -> bool:
    return (
        type(block) is Block
        and type(block.attn) is Attention
        and block.attn.gate is None
        and isinstance(block.attn.norm, nn.Identity)
        and type(block.mlp) is Mlp
        and isinstance(block.mlp.fc1, nn.Linear)
        and isinstance(block.mlp.norm, nn.Identity)
    )


def blocks_of(vit: VisionTransformer) -> list[Any]:
    """Return the blocks of a ViT."""
    return list(vit.blocks)
