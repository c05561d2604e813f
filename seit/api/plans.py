"""Settings of the verbs that make runs, resolved before anything starts."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_args

from seit.config import read_yaml
from seit.errors import UsageError
from seit.pretraining import ObjectiveName
from seit.recipes import find_recipe
from seit.shards import Store
from seit.training import LoopConfig, kind_named, resolve_settings

ALL = "all"
_SPEECH = "tune-speech"
"""Kind of run that `tune` makes of a speech model."""
_SHORT_NAMES: Mapping[str, Mapping[str, str]] = {
    "train": {"pixels": "data.pixels"},
    "pretrain": {"sparsity": "sparsity.share"},
    "tune": {"method": "tuning.method"},
    _SPEECH: {"method": "tuning.method", "backbone": "speech.backbone", "layer": "speech.layer"},
    "compress": {"method": "compression.method"},
    "continual": {
        "pet": "tuning.method",
        "increment": "stream.increment",
        "initial": "stream.initial",
        "order": "stream.order",
        "memory": "memory.bytes",
    },
}
"""Settings with a flag of their own, by verb and flag, besides those that all verbs share."""
_BACKBONES: Mapping[str, str] = {"compress": "compression.student"}
"""Settings that name a recipe of the backbone to train, by verb."""
_METHODS: Mapping[str, str] = {
    "tune": "seit.models",
    _SPEECH: "seit.models",
    "compress": "seit.compression",
}
"""Room of the methods of the verbs that compare some, imported on first use."""
Name = TypeVar("Name", bound=str)


def plan_run(
    verb: str,
    store: Store | str | Path,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    seeds: int = 1,
    **changes: Any,
) -> LoopConfig:
    """Resolve the settings of a run and start nothing: what `--dry-run` prints.

    Args:
        verb: train, pretrain, tune, compress or continual.
        store: see `train`.
        out: see `train`.
        recipe: see `train`.
        config: see `train`.
        resume: see `train`.
        seeds: number of seeds of train, tune and compress.
        **changes: see `train`.

    Raises:
        UsageError: see `train`.
    """
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it must be at least 1")
    task = str(changes.get("objective") or "mtm") if verb == "pretrain" else verb
    if verb == "pretrain" and task not in get_args(ObjectiveName):
        raise UsageError(
            f"there is no objective {task!r}; there are {', '.join(get_args(ObjectiveName))}"
        )
    backbone = changes.pop("backbone", None) if verb == "tune" else None
    if verb == "tune" and recipe and "speech" in read_yaml(find_recipe(recipe).path):
        verb = task = _SPEECH
    if backbone is not None:
        if changes.get("model") is not None:
            raise UsageError("--backbone names the network already; leave --model out")
        name = Path(str(backbone).removeprefix("hf:")).name
        verb = task = _SPEECH
        changes |= {"backbone": str(backbone), "model": name}
    named: tuple[str, ...] = ()
    if verb in _METHODS:
        methods: Iterable[str] = import_module(_METHODS[verb]).METHODS
        named = choose_methods(changes.get("method"), methods)
        changes["method"] = next(iter(named), None)
    settings: LoopConfig = resolve_settings(
        kind_named(verb).settings_class,
        task=task,
        store=store,
        recipe=recipe,
        config=config,
        resumed=Path(out) if resume and out is not None else None,
        changes=changes,
        short_names=_SHORT_NAMES[verb],
        backbone_setting=_BACKBONES.get(verb),
    )
    if verb == "compress":
        from seit.compression import METHODS, CompressConfig, refuse_unused

        assert isinstance(settings, CompressConfig)
        chosen = choose_methods(named, METHODS)
        refuse_unused(settings, chosen or (settings.compression.method,))
    return settings


def choose_methods(given: str | Sequence[str] | None, there: Iterable[Name]) -> tuple[Name, ...]:
    """Return the methods that are named among those that there are; none where none is given.

    Raises:
        UsageError: there is no method of a name, or one is named twice.
    """
    if given is None:
        return ()
    known = {str(one): one for one in there}
    if given == ALL:
        return tuple(known.values())
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else [*given]
    if ALL in names:
        raise UsageError(f"{ALL!r} stands for all methods; pass it alone, or leave it out")
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}, {ALL}"
            raise UsageError(f"there is no method {name!r}; {hint}")
    if len(set(names)) < len(names):
        raise UsageError(f"--method is {','.join(names)}; name each method once")
    return tuple(known[name] for name in names)
