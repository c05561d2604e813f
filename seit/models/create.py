"""Creation of timm models with the stem replaced and everything else unchanged."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from seit.errors import DamagedError, UsageError
from seit.models.compression.selection import cut
from seit.models.compression.structure import Structure
from seit.models.pyramid import Plan, parse_entry, plan_pyramid
from seit.models.stages import end_after
from seit.models.stem import Stem
from seit.models.timm_models import (
    instantiate,
    rehearse,
    settle,
    sketch,
    takes,
    without_memory,
)
from seit.models.vit import check_patch_embed, is_vit, make_vit, vit_stem
from seit.shards import Store
from seit.tensors import first_not_finite

_LOG = logging.getLogger(__name__)
_FEW_PATCHES = 16
"""Minimum number of patches for a stem to suit a grid."""
CROP_SHARE = 7 / 8
"""Side of the network's crop, as a fraction of the stored grid's side (28 of 32)."""


def create_model(
    name: str, store: Store, *, stem: str = "auto", num_classes: int | None = None, **kwargs: Any
) -> nn.Module:
    """Create the timm model ``name`` for the tokens of ``store``.

    Its forward takes embedded tokens float (B, C, h, w) from ``seit.augment.TokenAugment``, with C
    the codebook's dim and h, w 7/8 of the grid (of one level, if the tokenizer has several), and
    returns logits (B, ``num_classes``). Parameter names are timm's.

    Args:
        name: a timm model, such as ``vit_small_patch16_224`` or ``resnet50``; the patch size
            of a ViT is ignored.
        store: provides C, the grid and the default ``num_classes``.
        stem: see `build_backbone`.
        num_classes: outputs of the head.
        **kwargs: passed to ``timm.create_model``.

    Raises:
        UsageError: timm has no such model, it cannot take tokens, or an argument is invalid.
    """
    rows, width = store.card.tokenizer.grid
    height = rows // store.levels
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
    num_classes: int,
    stem: str = "auto",
    weights: Mapping[str, torch.Tensor] | None = None,
    structure: Structure | None = None,
    last_stage: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm model over inputs (B, ``channels``, h, w) that returns (B, ``num_classes``).

    Args:
        name: a timm model.
        channels: C, of embedded tokens or of pixels.
        input_size: h and w.
        num_classes: outputs of the head.
        stem: ``auto`` selects a stem for the backbone and the grid. ViTs take kernel/stride/padding
            of one convolution, or of several joined by ``+``, or ``early/4``; their default is
            4/2/1, or 3/1/1 if that would leave fewer than 49 patches. Hierarchical backbones take
            ``up`` or ``later``; their default is the latter if it works, see `seit.models.entry`.
            ``none`` keeps timm's stem, for pixels.
        weights: weights to load into it; a larger model is refused before it takes memory.
        structure: sizes of a pruned ViT, whose values are undefined until weights are loaded.
        last_stage: stage after which a hierarchical backbone ends; None for its last.
        **kwargs: passed to ``timm.create_model``.

    Raises:
        UsageError: timm has no such model, it cannot take tokens, or an argument is invalid.
    """
    if num_classes < 1:
        raise UsageError("the store has no classes to learn; tokenize a labeled corpus")
    _check_ours(name, kwargs, stem)
    kwargs = settle(name, kwargs)
    original = sketch(name, kwargs)
    if last_stage is not None and is_vit(original):
        raise UsageError(
            f"model.last_stage is {last_stage!r}, and {name!r} has no stages; set model.depth"
        )
    settings = {**kwargs, "in_chans": channels, "num_classes": num_classes}
    make: Callable[[], nn.Module]
    inputs = (channels, *input_size)
    if stem == "none":
        size = {"img_size": input_size} if takes(original, "img_size") else {}
        make = _up_to(
            last_stage, partial(instantiate, name, {**settings, **size}), inputs, num_classes
        )
    elif is_vit(original):
        check_patch_embed(original, name)
        adaptor = vit_stem(stem, input_size)
        _note_few_patches(adaptor, input_size)
        make = partial(make_vit, name, settings, stem=adaptor, input_size=input_size)
    else:
        entry = parse_entry(stem, name)
        plan = plan_pyramid(name, settings, original=original, entry=entry, grid=input_size)
        plans = [plan, replace(plan, entry="up")] if stem == "auto" else [plan]
        make, rehearsed = _first_that_runs(plans, inputs, num_classes)
        if last_stage is not None:
            make = _up_to(last_stage, make, inputs, num_classes)
            with without_memory():
                rehearsed = make()
            with torch.device("meta"):
                rehearse(rehearsed, name, torch.zeros(2, *inputs), num_classes)
        if structure is not None:
            cut(rehearsed, structure, origin="the run")  # refuses a network without blocks
        if weights is not None:
            _check_size(rehearsed, name, weights)
        return make()
    with without_memory():
        rehearsed = make()
    with torch.device("meta"):
        rehearse(rehearsed, name, torch.zeros(2, *inputs), num_classes)
    if structure is not None:
        cut(rehearsed, structure, origin="the run")
    if weights is not None:
        _check_size(rehearsed, name, weights)
    return make() if structure is None else rehearsed.to_empty(device="cpu")


def _first_that_runs(
    plans: Sequence[Plan], inputs: tuple[int, int, int], num_classes: int
) -> tuple[Callable[[], nn.Module], nn.Module]:
    """Return the first plan with a model that works on inputs (C, h, w), tested without memory.

    Raises:
        UsageError: none works; the error is that of the first.
    """
    errors = []
    for plan in plans:
        try:
            with without_memory():
                model = plan.make()
                plan.guard(model)
            with torch.device("meta"):
                rehearse(model, plan.name, torch.zeros(2, *inputs), num_classes)
        except UsageError as error:
            errors.append(error)
        else:
            return plan.make, model
    raise errors[0]


def _up_to(
    stage: str | None,
    make: Callable[[], nn.Module],
    inputs: tuple[int, int, int],
    num_classes: int,
) -> Callable[[], nn.Module]:
    """Return a maker of the same model that ends after a stage; None for its last."""
    if stage is None:
        return make
    return lambda: end_after(make(), stage, inputs=inputs, num_classes=num_classes)


def _check_size(model: nn.Module, name: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise a `UsageError` if the model has more weights than were saved."""
    wanted = sum(value.numel() for value in model.state_dict().values())
    found = sum(value.numel() for value in weights.values())
    if wanted > found:
        raise UsageError(
            f"{name!r} as it is set has {wanted:,} weights and {found:,} were saved; restore the "
            "settings or the weights from a copy"
        )


def _check_ours(name: str, kwargs: Mapping[str, Any], stem: str) -> None:
    """Raise a `UsageError` for arguments set by input and stem, and for non-classifiers."""
    if kwargs.get("features_only"):
        raise UsageError(
            f"features_only of {name!r} would give a list of feature maps, and models over tokens "
            "return logits; leave it out and call forward_features or forward_intermediates of the "
            "model"
        )
    ours = {"in_chans", "img_size"} | (set() if stem == "none" else {"patch_size"})
    if wrong := sorted(ours & kwargs.keys()):
        raise UsageError(
            f"{' and '.join(wrong)} of {name!r} follow from the input and the stem; leave them out"
        )


def _note_few_patches(stem: Stem, input_size: tuple[int, int]) -> None:
    """Warn if the requested stem leaves a ViT very few patches."""
    rows, columns = stem.output_size(input_size)
    usual = vit_stem("auto", input_size).output_size(input_size)
    if rows * columns < _FEW_PATCHES <= usual[0] * usual[1]:
        _LOG.warning(
            "the stem %s makes %d×%d patches of a grid of %d×%d; model.stem auto makes %d×%d",
            *(stem, rows, columns, *input_size, *usual),
        )


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def load_weights(
    model: nn.Module, weights: dict[str, torch.Tensor], *, origin: str, reason: str = ""
) -> None:
    """Load ``weights`` strictly; ``reason`` is why they may belong to another model, if known.

    Raises:
        UsageError: they belong to another model.
        DamagedError: one of them is not finite.
    """
    name = first_not_finite(weights)
    if name is not None:
        raise DamagedError(
            f"the weights of {origin} are not finite ({name}): its training failed; train it "
            "again with a lower optim.lr, or use another run"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = reason or _misfit(model, weights)
        raise UsageError(f"the weights of {origin} do not fit this model: {detail}") from error


def _misfit(model: nn.Module, weights: dict[str, torch.Tensor]) -> str:
    """Describe the first of each kind of difference between a model's tensors and others."""
    own = model.state_dict()
    both = [name for name in own if name in weights]
    lacking = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    unlike = [name for name in both if own[name].shape != weights[name].shape]
    parts = [f"{lacking[0]} is missing ({len(lacking):,} in all)"] if lacking else []
    parts += [f"{extra[0]} is not of the model ({len(extra):,} in all)"] if extra else []
    if unlike:
        shapes = [tuple(one[unlike[0]].shape) for one in (weights, own)]
        parts.append(f"{unlike[0]} has shape {shapes[0]}, and the model's {shapes[1]}")
    return "; ".join(parts)
