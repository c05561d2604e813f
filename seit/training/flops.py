"""Floating-point operations of ViTs by formula: matrix products alone, two for a multiply-add.

They are theory. Dense hardware multiplies the zeros of unstructured masks as fast as anything else,
so times are measured and reported apart from these counts.

Legend: n tokens in the blocks, D model dim.
"""

from typing import Any, NamedTuple

from timm.models import VisionTransformer
from torch import nn

TRAINING_FACTOR = 3
"""Passes that a training step costs: forward, and backward once for the gradients of weights and
once for those of inputs. The gradient of the pixels or tokens themselves, which nobody asks for,
is counted with them."""


class Flops(NamedTuple):
    """Operations of one forward pass of one sample, all int."""

    linears: int
    """Of the blocks' matrices."""
    kept_linears: int
    """The same, of the weights alone that are not masked."""
    attention: int
    """Of the products of queries with keys and of their softmax with values."""
    stem: int
    """Of the patch embedding, over all patches."""
    head: int
    """Of the classifier, where there is one."""

    @property
    def forward(self) -> int:
        """All of a dense pass."""
        return self.linears + self.attention + self.stem + self.head

    @property
    def sparse_forward(self) -> int:
        """All of a pass that leaves masked weights out."""
        return self.forward - self.linears + self.kept_linears

    @property
    def training(self) -> int:
        """Of a dense training step, per sample: `TRAINING_FACTOR` forward passes."""
        return TRAINING_FACTOR * self.forward

    @property
    def sparse_training(self) -> int:
        """Of a training step that leaves masked weights out, per sample."""
        return TRAINING_FACTOR * self.sparse_forward


def is_counted(model: nn.Module) -> bool:
    """Whether :func:`vit_flops` knows a model: a ViT that pools by its class token or a mean."""
    return isinstance(model, VisionTransformer) and getattr(model, "attn_pool", None) is None


def vit_flops(
    vit: VisionTransformer, *, num_tokens: int | None = None, kept_weights: int | None = None
) -> Flops:
    """Count the operations of a ViT that `is_counted`.

    Args:
        vit: with a convolution as its patch embedding.
        num_tokens: n, that enter the blocks, class token and registers included; all by default.
            Masked token modelling drops some.
        kept_weights: how many weights of the blocks' matrices are not masked; all by default.
    """
    patches: int = vit.patch_embed.num_patches
    n: int = patches + vit.num_prefix_tokens if num_tokens is None else num_tokens
    modules = list(vit.blocks.modules())
    weights = sum(module.weight.numel() for module in modules if isinstance(module, nn.Linear))
    dims = sum(map(_attended_dim, modules))
    return Flops(
        linears=2 * n * weights,
        kept_linears=2 * n * (weights if kept_weights is None else kept_weights),
        attention=4 * n * n * dims,
        stem=2 * patches * vit.patch_embed.proj.weight.numel(),
        head=2 * vit.head.weight.numel() if isinstance(vit.head, nn.Linear) else 0,
    )


def _attended_dim(module: Any) -> int:
    """Heads times their dim of a module that attends, which timm's tell by a ``head_dim``."""
    return module.num_heads * module.head_dim if hasattr(module, "head_dim") else 0
