"""`seit sweep`: search settings of a recipe on one store."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from seit.config import flatten, to_mapping
from seit.errors import UsageError
from seit.locks import locked_folder
from seit.progress import Progress
from seit.shards import Store, as_store, open_store
from seit.stores import hold_out_samples
from seit.stream import held_out
from seit.training.config import OF_THE_MACHINE, TrainConfig
from seit.training.feeds import has_labels
from seit.training.sweep.extent import SweepConfig
from seit.training.sweep.plan import plan_sweep
from seit.training.sweep.record import enter_sweep
from seit.training.sweep.result import SweepResult
from seit.training.sweep.search import Search
from seit.training.sweep.space import Space
from seit.training.sweep.trial import DEV

STORE_NAME = "store"


def sweep_settings(
    config: TrainConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    space: str | Path | Mapping[str, Any],
    extent: SweepConfig | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Search settings, judged on samples held out of the training split.

    Args:
        config: settings of all trials but those of the space; ``schedule.steps`` is the length of
            a whole run.
        store: an open store or its path. Its validation split is read once, for the winner.
        out: a new folder: a run `trial-007` for each trial, `store` with the split in two,
            `sweep.json`, `best.yaml` and `report.html`.
        space: a YAML file, or a mapping, of settings: lists of choices, and ranges ``{low, high,
            log}``.
        extent: extent of the sweep; the defaults if None.
        resume: continue an interrupted sweep, if there is one, to the same result.
        progress: called after each step, with the steps of all trials.

    Raises:
        UsageError: space, settings, store and folder do not fit together, or no draw meets the
            limits.
        SeitError: a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the current step and a checkpoint.
    """
    opened = as_store(store)
    out = Path(out)
    plan = plan_sweep(config, space=space, extent=extent)
    _check_splits(config, opened)
    with locked_folder(out):
        identity = _identity(config, opened, plan.space, plan.extent)
        record = enter_sweep(out, identity, resume=resume)
        record.write(out)
        data = _divided(config, opened, out, share=plan.extent.dev)
        search = Search(plan, data, out, record, progress)
        return search.finish(opened)


def _check_splits(config: TrainConfig, store: Store) -> None:
    """Check that the winner can be evaluated on the validation split."""
    train, val = store[config.data.train_split], config.data.val_split
    if val not in store or not has_labels(store[val]):
        others = [name for name in store if name != train.name and has_labels(store[name])]
        named = f"set data.val_split to {' or '.join(others)}, or " if others else ""
        raise UsageError(
            f"{store.folder} has no labeled samples in a split {val!r} to evaluate the winner on; "
            f"{named}tokenize again with a val/ folder, or by `seit tokenize --val-fraction`"
        )
    if (train.label_sets is None) != (store[val].label_sets is None):
        raise UsageError(
            f"the splits of {store.folder} differ in whether samples have several labels; give "
            "both splits the column labels, or both the column label"
        )


def _identity(
    config: TrainConfig, store: Store, space: Space, extent: SweepConfig
) -> dict[str, Any]:
    settings = flatten(to_mapping(config))
    kept = {name: value for name, value in settings.items() if name not in OF_THE_MACHINE}
    return {
        "settings": kept,
        "space": space.describe(),
        "store": store.card.seal,
        **{one.name: getattr(extent, one.name) for one in fields(extent)},
    }


def _divided(config: TrainConfig, store: Store, out: Path, *, share: float) -> Store:
    """Return the store whose training split has lost the held-out samples to `dev`."""
    path = out / STORE_NAME
    if not path.exists():
        split, seed = config.data.train_split, config.run.seed
        rows = held_out(store[split], share=share, seed=seed)
        note = {"share": share, "seed": seed}
        hold_out_samples(store, path, split=split, rows=rows, name=DEV, note=note)
    return open_store(path)
