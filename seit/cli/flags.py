"""The settings of a run: recipe, file, environment and flags, one over the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seit.errors import SeitError, UsageError
from seit.progress import Progress, human_rate

if TYPE_CHECKING:
    from seit.cli.output import Bar
    from seit.shards import Store
    from seit.training import Evaluation, LoopConfig, TrainResult

Config = TypeVar("Config", bound="LoopConfig")


def run_settings(
    kind: type[Config],
    *,
    task: str,
    store: str,
    recipe: str | None,
    config: Path | None,
    init_from: Path | None,
    resumed: Path | None,
    named: Mapping[str, Any],
    assigned: list[str] | None,
) -> Config:
    """Resolve the settings of a run.

    Flags win over ``SEIT_…`` variables, these over ``config``, that over the backbone of
    ``init_from``, that over ``recipe``, that over the defaults. Of a recipe for another backbone
    than a flag names, only the stochastic depth is kept.

    Args:
        kind: the config's class.
        task: the command, or the objective of a pre-training run, for the recipe that it takes
            where neither ``recipe`` nor ``config`` is given, fitted to the store.
        store: the store, which need not be there.
        recipe: its name.
        config: a YAML file.
        init_from: a run whose weights are started from, so that its backbone and size of inputs
            are this run's too; else the setting of that name counts.
        resumed: the run that may be resumed; where it is there, ``init_from`` need not be.
        named: settings that have a flag of their own, None where it was not given.
        assigned: ``NAME=VALUE`` of ``--set``.

    Raises:
        UsageError: a setting is unknown or of the wrong type, a file is missing, or the recipe is
            another command's.
    """
    from seit.config import (
        build,
        flatten,
        from_environment,
        merge,
        nest,
        parse_assignments,
        read_yaml,
        setting_names,
    )
    from seit.recipes import find_recipe
    from seit.training import backbone_of, default_settings, kind_with, warn_of_modality

    flags = parse_assignments(assigned or ())
    start = None if init_from is None else str(init_from)
    flags.update(
        {name: one for name, one in {**named, "init_from": start}.items() if one is not None}
    )
    if named.get("schedule.epochs") is not None and named.get("schedule.steps") is None:
        flags["schedule.steps"] = None
    opened = _open(store)
    base: Mapping[str, Any] = {}
    if recipe:
        base = read_yaml(find_recipe(recipe).path)
        if opened is not None:
            warn_of_modality(find_recipe(recipe), opened)
    elif config is None:
        given = {**flatten(from_environment(kind)), **flags}
        base = default_settings(task, opened, given=given)
    own, wanted = (
        kind_with(name.partition(".")[0] for name in names).name
        for names in (flatten(base), setting_names(kind))
    )
    if recipe and own != wanted and (own, wanted) != ("train", "tune"):
        raise UsageError(f"the recipe {recipe} is one of `seit {own}`, not of `seit {wanted}`")
    of_recipe = base.get("model", {})
    if flags.get("model.name", of_recipe.get("name")) != of_recipe.get("name"):
        kept = {key: of_recipe[key] for key in ("drop_path",) if key in of_recipe}
        base = {**base, "model": kept}
    layers = (
        read_yaml(config) if config else {},
        from_environment(kind),
        nest(flags, origin="command line"),
    )
    start = merge(*layers).get("init_from")
    started = backbone_of(start, resumed=resumed) if start and "model.name" not in flags else {}
    return build(kind, merge(base, started, *layers), origin="settings")


def _open(store: str) -> "Store | None":
    """The store, or None where it cannot be opened, which the run itself says."""
    from seit.shards import open_store

    try:
        return open_store(store)
    except SeitError:
        return None


def print_settings(settings: Any, *, json: bool) -> None:
    """Print resolved settings as YAML, or as one JSON object."""
    import yaml

    from seit.cli.output import print_json, print_lines
    from seit.config import to_mapping

    if json:
        print_json(to_mapping(settings))
    else:
        print_lines(yaml.safe_dump(_lists(to_mapping(settings)), sort_keys=False).splitlines())


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def noted_on(bar: "Bar", names: Mapping[str, str]) -> Progress:
    """Progress that a bar shows, with some of the figures, each in its own words."""

    def show(done: int, total: int, figures: Mapping[str, float]) -> None:
        known = [text.format(figures[key]) for key, text in names.items() if key in figures]
        bar(done, total, ", ".join(known))

    return show


def accuracy_rows(
    result: "TrainResult | Evaluation", *, samples: int | None, num_classes: int
) -> list[tuple[str, str]]:
    """Rows of a classifier's figures: how sure they are, and none that says nothing.

    Args:
        result: its shares, 0–1, and its loss, in nats.
        samples: evaluated; None where that is not known.
        num_classes: of the classifier.
    """
    from seit.report import FEW_SAMPLES, MANY_CLASSES, say_share

    share, note = say_share(result.top1, samples)
    is_sure = samples is None or samples >= FEW_SAMPLES
    if is_sure:
        share = f"{result.top1:.4f}"
    rows = [("top-1", f"{share} ({note})" if note else share)]
    if is_sure and num_classes > MANY_CLASSES:
        rows.append(("top-5", f"{result.top5:.4f}"))
    return [*rows, ("loss", f"{result.loss:.4f}")]


def rate_row(samples_per_second: float, data_wait_fraction: float) -> tuple[str, str]:
    """The row of a training rate."""
    rate = human_rate(samples_per_second, "samples")
    return "rate", f"{rate}, {data_wait_fraction:.1%} of it waiting for data"
