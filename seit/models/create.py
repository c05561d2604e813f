"""One door to models: timm's, with the stem replaced and everything else unchanged."""

from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from seit.errors import UsageError
from seit.models.stem import Stem
from seit.shards import Store

# What the constructors of timm's other families raise when they are given a ViT's arguments.
_BUILD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

CROP_SHARE = 7 / 8
"""Side of the crop that the network sees, of the side of the stored grid (28 of 32)."""


def create_model(
    name: str, store: Store, *, stem: str = "4/2/1", num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Create the timm model ``name`` for the tokens of ``store``.

    Its forward takes embedded tokens float (B, C, h, w), C the codebook's dim and h, w 7/8 of the
    grid (of one level, where the tokenizer has several), as ``seit.augment.TokenAugment`` makes
    them, and returns logits (B, ``num_classes``). Names of parameters are timm's.

    Args:
        name: a ViT or DeiT of timm, such as ``vit_small_patch16_224``; its patch size is ignored.
        store: gives C, the grid and, unless ``num_classes`` is given, the number of classes.
        stem: kernel/stride/padding of the stem adaptor.
        num_classes: outputs of the head.
        **kwargs: passed on to ``timm.create_model``.

    Raises:
        UsageError: timm has no such model, it is not a ViT, or an argument does not fit it.
    """
    rows, width = store.card.tokenizer.grid
    height = rows // (store.codebook.shape[0] if store.codebook.ndim == 3 else 1)
    return build_backbone(
        name,
        channels=store.card.tokenizer.codebook_dim,
        input_size=(max(1, round(height * CROP_SHARE)), max(1, round(width * CROP_SHARE))),
        stem=stem,
        num_classes=len(store.classes) if num_classes is None else num_classes,
        **kwargs,
    )


def build_backbone(
    name: str,
    *,
    channels: int,
    input_size: tuple[int, int],
    stem: str,
    num_classes: int,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm ViT over inputs (B, ``channels``, h, w); see `create_model`.

    The same function builds pixel baselines: there the stem is the patch embedding, such as
    ``"16/16/0"`` on 224 px.
    """
    adaptor = Stem.parse(stem)
    rows, columns = adaptor.output_size(input_size)
    if num_classes < 1:
        raise UsageError("the store has no classes to learn; tokenize a labelled corpus")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise UsageError(f"timm {timm.__version__} has no model {name!r}{hint}")
    pooling = "token" if "distilled" in name else "avg"  # DeiT's two heads read two tokens
    settings = {"global_pool": pooling, **kwargs}
    try:
        model = timm.create_model(
            name,
            pretrained=False,
            in_chans=channels,
            num_classes=num_classes,
            img_size=(rows, columns),
            patch_size=1,
            **settings,
        )
    except _BUILD_ERRORS as error:
        raise UsageError(
            f"timm could not build {name!r} with {settings} ({error}); only ViT and DeiT backbones "
            "take tokens in this version"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise UsageError(
            f"{name!r} is a {type(model).__name__}; only ViT and DeiT backbones take tokens in "
            "this version"
        )
    embed = model.patch_embed
    if not isinstance(embed, PatchEmbed):
        raise UsageError(
            f"{name!r} embeds patches by a {type(embed).__name__}, which no stem can replace; "
            "choose a plain ViT or DeiT"
        )
    embed.proj = adaptor.convolution(channels, model.embed_dim)
    embed.patch_size = (adaptor.kernel, adaptor.kernel)
    embed.img_size = input_size
    return model


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], *, origin: str) -> None:
    """Load ``weights`` strictly.

    Raises:
        UsageError: they belong to another model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UsageError(f"the weights of {origin} do not fit this model: {detail}") from error
