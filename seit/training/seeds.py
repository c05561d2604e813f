"""Repetition of a run with several seeds, and the spread of its results.

A folder of seeds holds a run folder for each, `seeds.json` and `report.html`.
"""

import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from seit.config import flatten, to_mapping
from seit.documents import read_json
from seit.errors import DamagedError, UsageError
from seit.files import PARTIAL_SUFFIX, write_atomically
from seit.locks import RUN_LOCK_NAME, locked_folder
from seit.outcomes import Outcome
from seit.processes import is_main_process
from seit.progress import Progress, human_rate
from seit.report import MANY_CLASSES, Figure, Section, figures, table
from seit.shards import Store, as_store
from seit.training.config import TrainConfig
from seit.training.data_identity import seal_of
from seit.training.records import MAX_RECORD_BYTES, SeedsRecord
from seit.training.run import Run

if TYPE_CHECKING:
    from seit.training.classify import TrainResult
    from seit.training.speech.data import SoundData

_LOG = logging.getLogger(__name__)
SEEDS_NAME = "seeds.json"
_PREFIX = "seed-"
FIGURES = ("mean_average_precision", "top1", "top5", "loss")
LABELS = {"mean_average_precision": "mAP", "top1": "top-1", "top5": "top-5", "loss": "loss"}
_FORMS = {name: "{:.4f}" if name == "loss" else "{:.2%}" for name in FIGURES}
Result = TypeVar("Result", bound="TrainResult")


@dataclass(frozen=True)
class Spread:
    """Spread of a figure over seeds; ``std`` divides by n − 1 and is None for a single seed."""

    mean: float
    std: float | None
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), std, min(values), max(values))


@dataclass(frozen=True, repr=False)
class SeedsResult(Outcome, Generic[Result]):
    """Results of the runs.

    Attributes:
        results: result of each seed's run.
        top1: top-1 accuracy on the evaluated split, 0–1.
        top5: top-5 accuracy, 0–1.
        loss: mean cross-entropy, in nats.
        mean_average_precision: mean over the classes of several labels per sample, 0–1; None for
            one label.
    """

    recorded = ("seeds", *FIGURES)

    results: Mapping[int, Result]
    top1: Spread
    top5: Spread
    loss: Spread
    mean_average_precision: Spread | None = None

    @property
    def seeds(self) -> Mapping[int, Result]:
        """Alias of ``results``, named as in `seeds.json`."""
        return self.results

    @property
    def spreads(self) -> dict[str, Spread]:
        """Spreads by name; without mAP for one label per sample."""
        found = ((name, getattr(self, name)) for name in FIGURES)
        return {name: spread for name, spread in found if spread is not None}

    def shown(self, num_classes: int) -> list[str]:
        """Return the names of the meaningful spreads: top-5 is not for few classes."""
        return [name for name in self.spreads if name != "top5" or num_classes > MANY_CLASSES]


def train_seeds(
    config: TrainConfig,
    store: Store | str | Path,
    out: str | Path,
    *,
    seeds: int,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> "SeedsResult[TrainResult]":
    """Repeat a run with ``seeds`` consecutive seeds from ``config.run.seed`` on.

    Processes started by `torchrun` share each run, one seed after the other.

    The run of seed 3 goes to `seed-3` in ``out``. ``resume`` also adds seeds to finished ones.

    Raises:
        UsageError, SeitError: as for :func:`seit.training.train`.
    """
    from seit.training.classify import train

    return repeat(
        train,
        config,
        store,
        out,
        seeds=seeds,
        resume=resume,
        init_from=init_from,
        progress=progress,
    )


def repeat(
    learn: Callable[..., Result],
    config: TrainConfig,
    store: "Store | SoundData | str | Path",
    out: str | Path,
    *,
    seeds: int,
    resume: bool,
    init_from: str | Path | None,
    progress: Progress | None,
) -> SeedsResult[Result]:
    """Call ``learn``, a function like `train`, with each seed; see `train_seeds`."""
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it must be at least 1")
    store = as_store(store) if isinstance(store, Store | str | Path) else store
    out = Path(out)
    numbers = [config.run.seed + index for index in range(seeds)]
    configs = [replace(config, run=replace(config.run, seed=seed)) for seed in numbers]
    is_main = is_main_process()
    with locked_folder(out) if is_main else nullcontext():
        if is_main:
            _enter(out, config, store, numbers, resume=resume)
        results: dict[int, Result] = {}
        try:
            for index, (seed, own) in enumerate(zip(numbers, configs, strict=True)):
                if is_main and seeds > 1:
                    _LOG.info("seed %d, run %d of %d", seed, index + 1, seeds)
                results[seed] = learn(
                    own,
                    store,
                    out=folder_of(out, seed),
                    resume=True,
                    init_from=init_from,
                    progress=counting(progress, index, seeds),
                )
                if is_main and len(results) > _num_recorded(out):
                    _write(out, config, store, results, numbers)
        except UsageError:
            if is_main and not _has_runs(out):
                (out / SEEDS_NAME).unlink(missing_ok=True)  # refused before the first run
            raise
        summary = _summarize(results)
        if is_main:
            _write(out, config, store, results, numbers)
            _write_report(out, config, summary)
    return summary


def _has_runs(out: Path) -> bool:
    return any(Run.exists(run) for run in out.glob(f"{_PREFIX}*"))


def _num_recorded(out: Path) -> int:
    """Return the number of runs with a result in `seeds.json`."""
    known = read_seeds(out)
    return len(known["runs"]) if known else 0


def folder_of(out: Path, seed: int) -> Path:
    """Return the run folder of ``seed`` in a folder of seeds."""
    return out / f"{_PREFIX}{seed}"


def read_seeds(out: Path) -> dict[str, Any] | None:
    """Read `seeds.json`: ``status``, ``config``, ``store``, ``runs``, ``summary``; or None.

    Raises:
        DamagedError: the file is corrupt.
    """
    path = out / SEEDS_NAME
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path, SeedsRecord, max_bytes=MAX_RECORD_BYTES)
    for run in found["runs"]:
        if run["folder"] != folder_of(out, run["seed"]).name:
            raise DamagedError(
                f"{path} names the folder {run['folder']!r} for seed {run['seed']}; restore it "
                "from a copy"
            )
    return found


def _enter(
    out: Path,
    config: TrainConfig,
    store: "Store | SoundData",
    numbers: Sequence[int],
    *,
    resume: bool,
) -> None:
    """Create a new folder of seeds, or check that the one at ``out`` can be resumed."""
    known = read_seeds(out)
    if known is not None and not _has_runs(out):
        return _write(out, config, store, {}, numbers)  # an interrupted attempt without runs
    if known is None:
        free = {RUN_LOCK_NAME, SEEDS_NAME + PARTIAL_SUFFIX}
        if {entry.name for entry in out.iterdir()} - free:
            raise UsageError(f"{out} already holds something else; choose a new --out folder")
        return _write(out, config, store, {}, numbers)
    if not resume:
        raise UsageError(
            f"{out} already holds runs of several seeds; pass --resume to continue them, or "
            "another --out"
        )
    differences = config.differences(known["config"])
    if differences:
        raise UsageError(
            f"{out} cannot be resumed with other settings ({'; '.join(differences)}); repeat the "
            "first command or choose another --out"
        )
    if known["store"] != seal_of(store):
        raise UsageError(
            f"{out} was started on another store than {store.folder}, or that store has changed "
            "since; pass the unchanged one, or choose another --out"
        )
    if len(known["runs"]) > len(numbers):
        raise UsageError(
            f"{out} holds {len(known['runs'])} seeds, more than {len(numbers)}; pass at least as "
            "many, or choose another --out"
        )
    if known["config"] != json.loads(json.dumps(to_mapping(config))):  # longer schedule or moved
        _write(out, config, store, {}, numbers)
    return None


def counting(progress: Progress | None, index: int, runs: int) -> Progress | None:
    """Report progress of run ``index`` as progress of all ``runs``."""
    if progress is None:
        return None

    def tell(done: int, total: int, latest: Mapping[str, float]) -> None:
        progress(index * total + done, runs * total, latest)

    return tell


def _summarize(results: Mapping[int, Result]) -> SeedsResult[Result]:
    values = {name: [getattr(one, name) for one in results.values()] for name in FIGURES}
    spreads = {name: Spread.of(found) for name, found in values.items() if None not in found}
    return SeedsResult(dict(results), **spreads)


def _write(
    out: Path,
    config: TrainConfig,
    store: "Store | SoundData",
    results: "Mapping[int, TrainResult]",
    numbers: Sequence[int],
) -> None:
    spreads = _summarize(results).spreads if results else {}
    document = {
        "status": "finished" if len(results) == len(numbers) else "started",
        "config": to_mapping(config),
        "store": seal_of(store),
        "runs": [
            {"seed": seed, "folder": folder_of(out, seed).name, **asdict(result)}
            for seed, result in results.items()
        ],
        "summary": {name: asdict(spread) for name, spread in spreads.items()},
    }
    write_atomically(out / SEEDS_NAME, json.dumps(document, indent=2).encode() + b"\n")


def _write_report(out: Path, config: TrainConfig, summary: SeedsResult[Any]) -> None:
    from seit.training.report import THROUGHPUT, group_curves, write_report

    seeds = list(summary.results)
    runs = [Run.open(folder_of(out, seed)) for seed in seeds]
    names = summary.shown(len(runs[0].classes))
    rows = [
        [
            f"{seed}",
            *(_FORMS[name].format(getattr(one, name)) for name in names),
            human_rate(one.samples_per_second),
        ]
        for seed, one in summary.results.items()
    ]
    header = ["seed", *(LABELS[name] for name in names), "rate of samples"]
    groups = {"mean" if len(runs) > 1 else f"seed {seeds[0]}": [run.metrics() for run in runs]}
    settings = flatten(to_mapping(config))
    settings["run.seed"] = ", ".join(map(str, seeds))
    write_report(
        out,
        title=f"Seeds {out.name}",
        lead=f"{config.model.name}, {len(runs)} runs that differ in nothing but the seed.",
        sections=[
            Section("Result", figures([_tile(name, summary.spreads[name]) for name in names])),
            Section("Learning curves", group_curves(groups), "Faint: the seeds one by one."),
            Section("Seeds", table(rows, header=header)),
            Section("Throughput", group_curves(groups, THROUGHPUT)),
        ],
        settings=settings,
        environment=runs[0].info["environment"],
    )


def _tile(name: str, spread: Spread) -> Figure:
    label, form = LABELS[name], _FORMS[name]
    value = form.format(spread.mean)
    note = f"{form.format(spread.min)} to {form.format(spread.max)}"
    if spread.std is not None:
        note = f"± {form.format(spread.std)}, {note}"
    return Figure(label, value, note)
