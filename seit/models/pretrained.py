"""Initialization from timm's pretrained weights of the same backbone.

What timm's own network and ours have in common is loaded by name, strictly. What differs is fresh:
the stem, which takes tokens, and the classifier. The position embedding of a ViT is resampled to
our grid (bicubic, timm's `resample_abs_pos_embed`), and the final norm of a ViT that pools a class
token becomes the norm after our mean.

Legend: D model dim, L patches, P tokens before them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from seit.errors import DamagedError, UsageError
from seit.models.classifier import is_of_head
from seit.models.timm_models import settle, sketch
from seit.tensors import first_not_finite

_POSITIONS = "pos_embed"
_SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """Weights of a network after initialization from a file, by name.

    Attributes:
        loaded: names that were loaded as they are.
        resampled: position embeddings of another grid.
        fresh: names with new values: the stem, and the classifier unless it was asked for.
        unused: names of the file that the network lacks.
    """

    loaded: tuple[str, ...]
    resampled: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def load_pretrained(
    model: nn.Module,
    name: str,
    weights: Mapping[str, Tensor],
    *,
    origin: str,
    with_head: bool = False,
    **kwargs: Any,
) -> Loaded:
    """Load the weights of the timm model ``name`` into ``model``, which `build_backbone` built.

    Args:
        model: the network over tokens.
        name: name of the timm model.
        weights: timm's weights of that model.
        origin: where they are from, for messages.
        with_head: whether the classifier is loaded too; it must have as many classes.
        **kwargs: arguments of ``timm.create_model`` that ``model`` was built with.

    Raises:
        UsageError: the weights are those of another model, or of another number of classes although
            ``with_head``.
        DamagedError: one of them is not finite.
    """
    given = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    if (bad := first_not_finite(given)) is not None:
        raise DamagedError(f"{origin}: {bad} is not finite; take another file")
    own = model.state_dict()
    theirs = sketch(name, settle(name, kwargs)).state_dict()
    given = _with_our_norm(given, own)
    foreign = [key for key in given if key not in theirs and key not in own]
    if foreign:
        raise UsageError(f"{origin} is not one of {name!r}: that has no {_some(foreign)}")
    fresh = _replaced(own, theirs)
    head = {key for key in own if is_of_head(model, key)}
    fresh = (fresh - head) if with_head else (fresh | head)
    taken: dict[str, Tensor] = {}
    resampled: list[str] = []
    for key, value in own.items():
        if key in fresh:
            continue
        if key not in given:
            raise UsageError(f"{origin} is not one of {name!r}: it lacks {key}")
        found = given[key]
        if key.rpartition(".")[2] == _POSITIONS and found.shape != value.shape:
            found = _resampled(found, value, model, origin)
            resampled.append(key)
        if found.shape != value.shape:
            what = "; leave --pretrained-head out" if key in head else ""
            raise UsageError(
                f"{origin} does not fit {name!r}: {key} is {_shape(found)}, not {_shape(value)}"
                f"{what}"
            )
        taken[key] = found.to(value.dtype)
    model.load_state_dict({**own, **taken})
    return Loaded(
        loaded=tuple(key for key in taken if key not in resampled),
        resampled=tuple(resampled),
        fresh=tuple(key for key in own if key not in taken),
        unused=tuple(key for key in given if key not in taken),
    )


def _replaced(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> set[str]:
    """Return our weights in modules that timm's network lacks, or has with other shapes."""
    modules = {
        key.rpartition(".")[0]
        for key, value in own.items()
        if key.rpartition(".")[2] != _POSITIONS
        and "." in key
        and not _is_norm_of_mean(key)
        and (key not in theirs or theirs[key].shape != value.shape)
    }
    return {key for key in own if "." in key and key.rpartition(".")[0] in modules}


def _is_norm_of_mean(key: str) -> bool:
    return key.startswith("fc_norm.")


def _with_our_norm(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the final norm as a network that pools a mean does."""
    if "fc_norm.weight" not in own or "fc_norm.weight" in given or "norm.weight" in own:
        return given
    return {f"fc_{key}" if key.startswith("norm.") else key: one for key, one in given.items()}


def _resampled(found: Tensor, value: Tensor, model: nn.Module, origin: str) -> Tensor:
    """Return position embeddings (1, P + L, D) of our grid."""
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if getattr(model, "no_embed_class", False):
        prefix = 0
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    patches = found.shape[1] - prefix if found.ndim == 3 else -1
    side = round(max(patches, 0) ** 0.5)
    if grid is None or patches < 1 or side * side != patches or found.shape[2] != value.shape[2]:
        raise UsageError(
            f"{origin}: a position embedding of {_shape(found)} cannot be resampled to "
            f"{_shape(value)}; take weights of a square grid and of this size of network"
        )
    with torch.no_grad():
        made: Tensor = resample_abs_pos_embed(found.float(), list(grid), num_prefix_tokens=prefix)
    return made


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + more
