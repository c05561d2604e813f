"""Default settings: a recipe fitted to the store, and the backbone of ``init_from``."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seit.augment import crop_size_of
from seit.config import flatten, merge, nest, read_yaml, to_mapping
from seit.errors import UsageError
from seit.models import vit_stem
from seit.processes import world_size
from seit.recipes import Recipe, default_recipe
from seit.shards import Store
from seit.stream import select
from seit.training.run import Run

_LOG = logging.getLogger(__name__)
FEW_PATCHES = 16
"""Minimum patches; a recipe's stem that leaves fewer is replaced by a smaller one."""
_LEAST_PATCHES = 4
_STEMS = (("4/4/0", "2/2/0", "1/1/0"), ("early/4", "early/2", "early/1"))
"""Stems of the recipes, each with smaller ones."""
_STEPS_PER_EPOCH = 4


def default_settings(
    task: str, store: Store | None, *, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings of the default recipe of ``task``, nested, fitted to ``store``.

    Args:
        task: the command, or the objective of a pretraining run.
        store: training data; None if it cannot be opened, which the run itself will report.
        given: settings by dotted name that override these.

    Raises:
        UsageError: no recipe fits the store; the message names the nearest.
    """
    recipe = default_recipe(task, "image" if store is None else store.card.tokenizer.modality)
    return read_yaml(recipe.path) if store is None else fit_recipe(recipe, store, given=given)


def fit_recipe(
    recipe: Recipe, store: Store, *, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings of a recipe, nested, fitted to a store; say what was changed.

    The stem leaves 16 patches or more, a crop of the whole grid is resized to this grid, and the
    batch shrinks for small stores.

    Args:
        recipe: the recipe.
        store: training data.
        given: settings by dotted name that override these.

    Raises:
        UsageError: the recipe does not fit the store.
    """
    values, given = read_yaml(recipe.path), given or {}
    changes = _fit_grid(flatten(values), store, recipe) | _fit_batch(flatten(values), store, given)
    changes = {name: value for name, value in changes.items() if name not in given}
    if changes:
        told = ", ".join(f"{name} {value}" for name, value in changes.items())
        _LOG.warning("the recipe %s is fitted to %s: %s", recipe.name, store.folder, told)
    return merge(values, nest(changes, origin="defaults"))


def backbone_of(path: str | Path, *, resumed: Path | None = None) -> dict[str, Any]:
    """Return the settings of a run that its weights depend on, nested.

    If the run is gone, use those of ``resumed``, a run that was initialized from it.
    """
    if resumed is not None and not Run.exists(path):
        begun = (resumed, *sorted(resumed.glob("seed-*")), *sorted(resumed.glob("*/seed-*")))
        path = next(filter(Run.exists, begun), path)
    settings = to_mapping(Run.open(path).settings)
    model = {key: value for key, value in settings["model"].items() if key != "drop_path"}
    return {"model": model, "augment": {"crop_size": settings["augment"]["crop_size"]}}


def warn_of_modality(recipe: Recipe, store: Store) -> None:
    """Warn if an explicitly named recipe is for a modality other than the store's."""
    modality = store.card.tokenizer.modality
    if recipe.modality not in (None, modality):
        _LOG.warning(
            "the recipe %s is made for %s and %s holds %s; `seit recipes list` names others",
            *(recipe.name, recipe.modality, store.folder, modality),
        )


def _fit_grid(values: Mapping[str, Any], store: Store, recipe: Recipe) -> dict[str, Any]:
    """Return a crop of the whole grid, and a stem that leaves enough patches."""
    changes: dict[str, Any] = {}
    rows, columns = store.card.tokenizer.grid
    grid = rows // store.levels, columns
    crop = values.get("augment.crop_size", 0)
    if crop and crop != min(grid):  # the recipe crops to the full side of its own grids
        crop = changes["augment.crop_size"] = min(grid)
    size, stem = crop_size_of(grid, crop), values.get("model.stem")
    smaller = next((one[one.index(stem) :] for one in _STEMS if stem in one), ())
    if not smaller:
        return changes
    patches = {one: _patches(one, size) for one in smaller}
    fitting = next((one for one in smaller if patches[one] >= FEW_PATCHES), smaller[-1])
    if patches[fitting] < _LEAST_PATCHES:
        raise UsageError(
            f"no recipe fits the grids of {store.folder}, of which the network sees "
            f"{size[0]}×{size[1]} tokens; the nearest is --recipe {recipe.name}"
        )
    if fitting != stem:
        changes["model.stem"] = fitting
    return changes


def _patches(stem: str, size: tuple[int, int]) -> int:
    """Return the patches that a stem makes, or 0 if the grid is smaller than its kernel."""
    try:
        rows, columns = vit_stem(stem, size).output_size(size)
    except UsageError:
        return 0
    return rows * columns


def _fit_batch(values: Mapping[str, Any], store: Store, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch size that gives a small store several steps per epoch."""
    split = str(given.get("data.train_split", "train"))
    wanted = values.get("data.batch_size", 0)
    if split not in store:
        return {}
    samples, fraction = store.card.samples_of(split), given.get("data.fraction", 1.0)
    if isinstance(fraction, float) and 0 < fraction < 1:
        samples = len(select(store[split], fraction=fraction, seed=0))
    if not samples or samples >= wanted:
        return {}
    step = 2 * world_size()  # each rank takes two mirrored parts
    return {"data.batch_size": max(samples // _STEPS_PER_EPOCH // step * step, min(step, samples))}
