"""ViTs as encoders: features of all patches, or of the kept ones.

Legend: B batch, C channels, h w inputs, L patches, n patches kept, D model dim.
"""

from typing import NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from seit.errors import UsageError


class Encoded(NamedTuple):
    """Features after the final norm.

    Attributes:
        prefix: (B, D), class token.
        patches: (B, n, D), in the order in which they were kept.
    """

    prefix: Tensor
    patches: Tensor


def check_encoder(model: nn.Module) -> VisionTransformer:
    """Return the model itself if :func:`encode` supports it.

    Raises:
        UsageError: it is not a plain ViT with a class token, or does not pool by a mean.
    """
    if not isinstance(model, VisionTransformer) or not _is_plain(model):
        raise UsageError(
            f"pre-training takes timm's plain ViTs with a class token, not a {type(model).__name__}"
            " of this kind; choose one such as vit_small_patch16_224"
        )
    return model


def _is_plain(vit: VisionTransformer) -> bool:
    has_tokens: bool = vit.cls_token is not None and vit.pos_embed is not None
    return has_tokens and getattr(vit, "attn_pool", None) is None and vit.global_pool == "avg"


def encode(
    vit: VisionTransformer,
    inputs_BChw: Tensor,
    *,
    keep: Tensor | None = None,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
) -> Encoded:
    """Encode patches with a timm ViT.

    Args:
        vit: from :func:`check_encoder`.
        inputs_BChw: (B, C, h, w).
        keep: (B, n) int64, the patches that enter the blocks; None for all.
        masked: (B, L) bool, the patches replaced by ``mask_token``.
        mask_token: (D,), with ``masked``.

    Returns:
        The class token's and the patches' features.
    """
    x_BLD: Tensor = vit.patch_embed(inputs_BChw)
    if masked is not None:
        assert mask_token is not None
        x_BLD = torch.where(masked[..., None], mask_token.to(x_BLD.dtype), x_BLD)
    x = vit._pos_embed(x_BLD)
    first = vit.num_prefix_tokens
    if keep is not None:
        patches = x[:, first:].gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :first], patches], dim=1)
    x = vit.fc_norm(vit.norm(vit.blocks(vit.norm_pre(x))))
    return Encoded(x[:, 0], x[:, first:])


def pooled(vit: VisionTransformer, inputs_BChw: Tensor) -> Tensor:
    """Return the input of a classifier's head: the normalized mean over patches, (B, D)."""
    features: Tensor = vit.forward_head(vit.forward_features(inputs_BChw), pre_logits=True)
    return features
