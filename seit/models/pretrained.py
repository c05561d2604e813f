"""Initialization from timm's pretrained weights of the same backbone.

What timm's own network and ours have in common is loaded by name, strictly. What differs is fresh:
the stem, which takes tokens, and the classifier. Position embeddings of a ViT are resampled to our
grid (bicubic, timm's `resample_abs_pos_embed`), tables of relative positions to our windows (by
timm's `resize_rel_pos_bias_table_simple`), and the final norm of a ViT that pools a class token
becomes the norm after our mean. Grids and windows are compared, not numbers of weights: 7 × 28
patches are as many as 14 × 14.

Legend: D model dim, L patches, P tokens before them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table_simple, to_2tuple
from torch import Tensor, nn

from seit.errors import DamagedError, UsageError
from seit.models.classifier import is_of_head
from seit.models.timm_models import settle, sketch
from seit.tensors import first_not_finite

_POSITIONS = "pos_embed"
_RELATIVE = "relative_position_bias_table"
_SHOWN = 3


@dataclass(frozen=True)
class Loaded:
    """Weights of a network after initialization from a file, by name.

    Attributes:
        loaded: names that were loaded as they are.
        resampled: position embeddings of another grid, and relative ones of another window.
        fresh: names with new values: the stem, the classifier unless it was asked for, and weights
            of other shapes that cannot be resampled.
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
    original = sketch(name, settle(name, kwargs))
    theirs = original.state_dict()
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
        if (fitted := _resampled(key, found, value, model, original, origin)) is not None:
            found = fitted
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
    """Return our weights that timm's network lacks, or has with other shapes.

    All of a module whose ``weight`` is one of them, since its bias and its statistics belong to it.
    """
    misfits = {
        key
        for key, value in own.items()
        if key.rpartition(".")[2] not in (_POSITIONS, _RELATIVE)
        and "." in key
        and not _is_norm_of_mean(key)
        and (key not in theirs or theirs[key].shape != value.shape)
    }
    modules = {key.rpartition(".")[0] for key in misfits if key.endswith(".weight")}
    return misfits | {key for key in own if "." in key and key.rpartition(".")[0] in modules}


def _is_norm_of_mean(key: str) -> bool:
    return key.startswith("fc_norm.")


def _with_our_norm(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the final norm as a network that pools a mean does."""
    if "fc_norm.weight" not in own or "fc_norm.weight" in given or "norm.weight" in own:
        return given
    return {f"fc_{key}" if key.startswith("norm.") else key: one for key, one in given.items()}


def _resampled(
    key: str, found: Tensor, value: Tensor, model: nn.Module, original: nn.Module, origin: str
) -> Tensor | None:
    """Return positions of a file at our places; None for other weights, and if places agree."""
    owner, _, kind = key.rpartition(".")
    if kind == _POSITIONS:
        return _resampled_positions(found, value, model, original, origin)
    if kind == _RELATIVE:
        ours, theirs = _window_of(model, owner), _window_of(original, owner)
        return _resampled_table(found, value, ours, theirs, origin)
    return None


def _resampled_positions(
    found: Tensor, value: Tensor, model: nn.Module, original: nn.Module, origin: str
) -> Tensor | None:
    """Return position embeddings (1, P + L, D) of our grid; None if the file's has this grid."""
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if getattr(model, "no_embed_class", False):
        prefix = 0
    grid = _grid_of(model)
    patches = found.shape[1] - prefix if found.ndim == 3 else 0
    old = _grid_with(patches, _grid_of(original))
    if found.shape == value.shape and (
        grid is None or old in (None, grid) or math.prod(grid) != patches
    ):
        return None
    if grid is None or old is None or found.shape[2] != value.shape[2]:
        raise UsageError(
            f"{origin}: a position embedding of {_shape(found)} cannot be resampled to "
            f"{_shape(value)}; take weights of a square grid and of this size of network"
        )
    with torch.no_grad():
        made: Tensor = resample_abs_pos_embed(
            found.float(), list(grid), old_size=list(old), num_prefix_tokens=prefix
        )
    return made


def _resampled_table(
    found: Tensor,
    value: Tensor,
    ours: tuple[int, int] | None,
    theirs: tuple[int, int] | None,
    origin: str,
) -> Tensor | None:
    """Return a table (distances, heads) or (heads, h, w) of our window; None if it has this one."""
    if found.shape == value.shape and ours == theirs:
        return None
    if ours is None or not _is_square_table(found, value, ours):
        raise UsageError(
            f"{origin}: relative positions of {_shape(found)} cannot be resampled to "
            f"{_shape(value)}; take weights of a square window and of this size of network"
        )
    with torch.no_grad():
        made: Tensor = resize_rel_pos_bias_table_simple(
            found.float(), new_window_size=ours, new_bias_shape=tuple(value.shape)
        )
    return made


def _is_square_table(found: Tensor, value: Tensor, window: tuple[int, int]) -> bool:
    """Return whether a table is of a square window and of our heads, as timm needs it."""
    if found.ndim != value.ndim or found.ndim != 2:
        return found.ndim == value.ndim == 3 and len(found) == len(value)
    num_others = len(value) - (2 * window[0] - 1) * (2 * window[1] - 1)  # with the class token
    side = math.isqrt(max(len(found) - num_others, 0))
    return side > 1 and side**2 == len(found) - num_others and found.shape[1] == value.shape[1]


def _grid_of(model: nn.Module) -> tuple[int, int] | None:
    """Return the rows and columns of a network's patches, if it has them."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def _grid_with(patches: int, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return ``grid`` if it has so many patches, else the square grid that has, if any."""
    if grid is not None and math.prod(grid) == patches:
        return grid
    side = math.isqrt(max(patches, 0))
    return (side, side) if patches > 0 and side**2 == patches else None


def _window_of(model: nn.Module, owner: str) -> tuple[int, int] | None:
    """Return the rows and columns of the window of a module's attention, if it has one."""
    window = getattr(dict(model.named_modules()).get(owner), "window_size", None)
    if window is None:
        return None
    rows, columns = to_2tuple(window)
    return int(rows), int(columns)


def _shape(value: Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a number"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:100] for name in names[:_SHOWN]) + more
