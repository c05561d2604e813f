"""Settings of a run, resolved from flags or keywords, environment, file and recipe."""

import logging
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from seit.config import (
    build,
    check_names,
    flatten,
    from_environment,
    merge,
    misspelled,
    nest,
    read_yaml,
    setting_names,
    to_mapping,
)
from seit.errors import SeitError, UsageError
from seit.models import takes_patches
from seit.recipes import find_recipe
from seit.shards import Location, Store, StoreSettings, as_store
from seit.training.config import LoopConfig, ModelConfig, TrainConfig, index_of_block
from seit.training.defaults import backbone_of, default_settings, warn_of_modality
from seit.training.kinds import KINDS, kind_with

Config = TypeVar("Config", bound=LoopConfig)
SHORT_NAMES: Mapping[str, str] = {
    "model": "model.name",
    "epochs": "schedule.epochs",
    "steps": "schedule.steps",
    "batch_size": "data.batch_size",
    "seed": "run.seed",
    "device": "run.device",
}
"""Settings with their own flag in every run command, by flag."""
_ORIGIN = "settings"
_LOG = logging.getLogger(__name__)


def resolve_settings(
    kind: type[Config],
    *,
    task: str,
    store: Store | Location,
    recipe: str | None = None,
    config: object = None,
    resumed: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    short_names: Mapping[str, str] | None = None,
    backbone_setting: str | None = None,
) -> Config:
    """Resolve the settings of a run.

    Precedence: ``changes``, ``SEIT_…`` variables, ``config``, the backbone of ``init_from`` or of
    the recipe that ``backbone_setting`` names and the crop of ``init_from``, ``recipe``, defaults.
    If ``changes`` name another backbone than the recipe's, only its stochastic depth is kept; of a
    run whose backbone is another than the one named, only the crop is taken.

    Args:
        kind: the config's class.
        task: the command, or the objective of a pretraining run; decides the recipe, fitted to the
            store, if neither ``recipe`` nor ``config`` is given.
        store: an open store or its path, which need not exist.
        recipe: a recipe's name.
        config: a YAML file's path, a mapping of settings, or a config object.
        resumed: the run to resume; if it exists, ``init_from`` need not.
        changes: settings by flag (``steps``), by path (``"optim.lr"``) or nested. A flag of None
            leaves the setting unchanged.
        short_names: paths of settings with their own flag, by flag, besides `SHORT_NAMES`.
        backbone_setting: path of the setting that may name a recipe, whose backbone is then taken
            instead of that of ``init_from``.

    Raises:
        UsageError: a setting is unknown (the message suggests the nearest name) or of the wrong
            type, a file is missing, or the recipe belongs to another command.
    """
    flags = _named(kind, changes or {}, {**SHORT_NAMES, **(short_names or {})})
    _warn_of_variables()
    opened = _open(store)
    base: Mapping[str, Any] = {}
    if recipe:
        base = read_yaml(find_recipe(recipe).path)
        if opened is not None:
            warn_of_modality(find_recipe(recipe), opened)
        _check_kind(kind, base, recipe)
    elif config is None:
        given = {**flatten(from_environment(kind)), **flags}
        base = default_settings(task, opened, given=given)
    of_recipe = base.get("model", {})
    if flags.get("model.name", of_recipe.get("name")) != of_recipe.get("name"):
        kept = {key: of_recipe[key] for key in ("drop_path",) if key in of_recipe}
        base = {**base, "model": kept}
    layers = (_of_config(config), from_environment(kind), nest(flags, origin=_ORIGIN))
    started = _started(merge(*layers), resumed=resumed, backbone_setting=backbone_setting)
    layer = merge(*layers).get("layer")
    if layer is not None:
        started = merge(started, {"model": _up_to(layer, merge(base, started, *layers))})
    settled = build(kind, merge(base, started, *layers), origin=_ORIGIN)
    if isinstance(settled, TrainConfig) and settled.pretrained_head and settled.pretrained is None:
        raise UsageError(
            "pretrained_head is set, but no file of weights by --pretrained; name one, or leave it "
            "out"
        )
    _warn_of_splits(settled)
    return settled


def _started(
    values: Mapping[str, Any], *, resumed: Path | None, backbone_setting: str | None
) -> dict[str, Any]:
    """Return the backbone and the crop to start from, nested: no backbone if values name another.

    Args:
        values: settings that override these, nested.
        resumed: see `resolve_settings`.
        backbone_setting: see `resolve_settings`.
    """
    given = flatten(values)
    start, named = given.get("init_from"), given.get("model.name")
    found: dict[str, Any] = {}
    if start:
        try:
            found = backbone_of(start, resumed=resumed)
        except SeitError:
            if named is None:  # else the run itself reports what it needs of the start
                raise
    recipe = given.get(backbone_setting) if backbone_setting else None
    if recipe is not None:
        of_recipe = read_yaml(find_recipe(str(recipe)).path).get("model", {})
        found = {**found, "model": {**to_mapping(ModelConfig()), **of_recipe}}
    if found and named not in (None, found["model"]["name"]):
        del found["model"]
    return found


def _warn_of_variables() -> None:
    """Warn of ``SEIT_…`` variables that are like the name of a setting but name none."""
    if not any(name.startswith("SEIT_") for name in os.environ):
        return
    kinds = [kind.settings_class for kind in KINDS if kind.of_tokens or kind.of_sounds]
    for name, near in misspelled([StoreSettings, *kinds]).items():
        _LOG.warning("the variable %s names no setting; did you mean %s?", name, near)


def _warn_of_splits(config: LoopConfig) -> None:
    """Warn if a run is evaluated on its training split."""
    if config.data.train_split == config.data.val_split:
        _LOG.warning(
            "data.val_split is the training split %s: the run is evaluated on samples that it "
            "learns from",
            config.data.val_split,
        )


def _up_to(layer: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a backbone that ends after a layer."""
    name = values.get("model", {}).get("name", ModelConfig.name)
    if isinstance(name, str) and not takes_patches(name):
        return {"last_stage": layer}
    return {"depth": index_of_block(layer) + 1}


def _named(
    kind: type[LoopConfig], changes: Mapping[str, Any], short_names: Mapping[str, str]
) -> dict[str, Any]:
    """Return changes by setting path, without flags that have no value.

    Raises:
        UsageError: a setting is unknown or has two values, or both lengths of a run are given.
    """
    known = set(setting_names(kind))
    groups = {name.partition(".")[0] for name in known}
    short = {flag: path for flag, path in short_names.items() if path in known}
    given: list[tuple[str, Any]] = []
    for name, value in changes.items():
        if isinstance(value, Mapping) and name in groups:
            given += flatten(value, f"{name}.").items()
        elif name not in short:
            check_names([name], known | set(short), origin=_ORIGIN)
            given.append((name, value))
        elif value is not None:
            given.append((short[name], value))
    flags: dict[str, Any] = {}
    for name, value in given:
        text = str(value) if isinstance(value, Path) else value
        if flags.setdefault(name, text) != text:
            raise UsageError(f"{name} is given as {flags[name]!r} and as {text!r}; give it once")
    if flags.get("init_from", "") is None:
        del flags["init_from"]
    counts_epochs = any(changes.get(name) is not None for name in ("epochs", "schedule.epochs"))
    if counts_epochs and flags.setdefault("schedule.steps", None) is not None:
        raise UsageError("epochs and steps are both given; a run has one of these lengths")
    return flags


def _of_config(config: object) -> Mapping[str, Any]:
    """Return the settings of a file, a mapping or a config object, nested."""
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return nest(flatten(config), origin="config")
    if is_dataclass(config):
        return to_mapping(config)
    if isinstance(config, str | Path):
        return read_yaml(Path(config))
    raise UsageError(
        f"config is {type(config).__name__}; expected the path of a YAML file, a mapping of "
        "settings, or a config object"
    )


def _check_kind(kind: type[LoopConfig], base: Mapping[str, Any], recipe: str) -> None:
    """Raise a `UsageError` for a recipe of another command; `tune` takes those of `train`."""
    own, wanted = (
        kind_with(name.partition(".")[0] for name in names)
        for names in (flatten(base), setting_names(kind))
    )
    if own != wanted and (own.name, wanted.name) != ("train", "tune"):
        takes = " with --backbone" if wanted.of_sounds else ""
        raise UsageError(
            f"the recipe {recipe} is one of `seit {own.command}`, not of `seit {wanted.command}`"
            f"{takes}"
        )


def _open(store: Store | Location) -> Store | None:
    """Open the store; return None if that fails, which the run itself reports."""
    try:
        return as_store(store)
    except SeitError:
        return None
