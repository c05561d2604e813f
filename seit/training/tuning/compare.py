"""Comparison of tuning methods on the same backbone, with several seeds each.

A folder of methods holds a folder of seeds for each, and `report.html`.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seit.config import flatten, to_mapping
from seit.errors import UsageError
from seit.locks import RUN_LOCK_NAME, locked_folder
from seit.models import Method, make_tuning
from seit.numbers import counted
from seit.outcomes import Outcome
from seit.processes import is_main_process
from seit.progress import Progress
from seit.report import Bar, Section, bar_chart, table
from seit.shards import Store, as_store
from seit.training.classify import pixels_per_token
from seit.training.feeds import make_augment
from seit.training.networks import build_model
from seit.training.report import Metrics, group_curves, write_report
from seit.training.run import Run
from seit.training.seeds import SeedsResult, Spread, counting, folder_of, repeat
from seit.training.speech.data import SoundData
from seit.training.tuning.config import TuneConfig
from seit.training.tuning.start import ADAPTER_NAME, TuneResult, tune

_LOG = logging.getLogger(__name__)
HEADER = (
    "method",
    "tuning parameters",
    "of the model",
    "top-1",
    "±",
    "seconds",
    "adapter bytes",
)


@dataclass(frozen=True)
class MethodSummary:
    """Row of the table.

    Attributes:
        method: its name.
        tuning_parameters: saved parameters without the classifier's; the mean over seeds.
        share: their fraction of all parameters of the saved model, 0–1.
        top1: accuracy on the evaluated split over the seeds, 0–1.
        seconds: duration of a run, the mean over seeds.
        adapter_bytes: size of `adapter.safetensors`, the mean over seeds.
        results: result of each seed's run.
    """

    method: Method
    tuning_parameters: float
    share: float
    top1: Spread
    seconds: float
    adapter_bytes: float
    results: dict[int, TuneResult]

    def cells(self) -> list[str]:
        """Return the row as text, in the order of `HEADER`."""
        std = self.top1.std
        return [
            self.method,
            f"{self.tuning_parameters:,.0f}",
            f"{self.share:.2%}",
            f"{self.top1.mean:.2%}",
            "–" if std is None else f"{std:.2%}",
            f"{self.seconds:.1f}",
            f"{self.adapter_bytes:,.0f}",
        ]


@dataclass(frozen=True, repr=False)
class MethodsResult(Outcome):
    """Results of the methods.

    Attributes:
        rows: one per method, in the given order.
        skipped: methods that do not fit the backbone, and why.
    """

    rows: tuple[MethodSummary, ...]
    skipped: dict[Method, str]


@dataclass(frozen=True)
class Learner:
    """Functions that tune a kind of network, and build it to see which methods fit.

    Attributes:
        tune: called like `tune` with config, data and ``out``, ``resume``, ``init_from``,
            ``progress``.
        build: config, data → a new network.
    """

    tune: Callable[..., Any]
    build: Callable[[Any, Any], nn.Module]


def tune_methods(
    config: TuneConfig,
    store: Store | SoundData | str | Path,
    *,
    out: str | Path,
    methods: Sequence[Method],
    init_from: str | Path | None = None,
    seeds: int = 1,
    skip_unfit: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    learner: Learner | None = None,
) -> MethodsResult:
    """Tune a backbone with several methods, one after the other, and compare them.

    Args:
        config: settings of the runs; its method is ignored.
        store: an open store or its path.
        out: a new folder; the run of the method `lora` and seed 3 goes to its `lora/seed-3`.
        methods: names of the methods.
        init_from: see :func:`seit.training.tune`.
        seeds: number of seeds, at least 1.
        skip_unfit: skip methods that do not fit the backbone instead of raising an error.
        resume: continue the interrupted runs at ``out``, or add methods or seeds to them.
        progress: called after each step.
        learner: functions for another kind of network than those over tokens.

    Raises:
        UsageError, SeitError: as for :func:`seit.training.tune`.
    """
    learner = learner or Learner(tune, _build)
    store = store if isinstance(store, SoundData) else as_store(store)
    out = Path(out)
    if len(set(methods)) < len(methods) or not methods:
        raise UsageError(f"--method is {','.join(methods) or 'empty'}; name each method once")
    others = out.is_dir() and {path.name for path in out.iterdir()} - {RUN_LOCK_NAME}
    if not resume and (others or (out.exists() and not out.is_dir())):
        raise UsageError(
            f"{out} already holds something; pass --resume to continue runs there, or choose a "
            "new --out folder"
        )
    configs = {one: replace(config, tuning=replace(config.tuning, method=one)) for one in methods}
    skipped = _unfit(learner.build(config, store), configs)
    if skipped and (not skip_unfit or len(skipped) == len(methods)):
        raise UsageError(next(iter(skipped.values())))
    chosen = [one for one in methods if one not in skipped]
    is_main = is_main_process()
    found: dict[Method, SeedsResult[TuneResult]] = {}
    with locked_folder(out) if is_main else nullcontext():
        for index, method in enumerate(chosen):
            if is_main:
                _LOG.info("method %s, %d of %d", method, index + 1, len(chosen))
            found[method] = repeat(
                learner.tune,
                configs[method],
                store,
                out / method,
                seeds=seeds,
                resume=True,
                init_from=init_from,
                progress=counting(progress, index, len(chosen)),
            )
        result = MethodsResult(
            tuple(_summarize(out, method, one) for method, one in found.items()), skipped
        )
        if is_main:
            _write_report(out, config, result)
    return result


def _build(config: TuneConfig, store: Store) -> nn.Module:
    augment = make_augment(store, config, torch.device("cpu"), with_train=False)
    return build_model(
        config.model,
        augment,
        num_classes=len(store.classes),
        patch_size=pixels_per_token(store),
    )


def _unfit(model: nn.Module, configs: dict[Method, TuneConfig]) -> dict[Method, str]:
    """Return the methods that do not fit the backbone, with their error messages."""
    refusals: dict[Method, str] = {}
    for method, own in configs.items():
        tuning = make_tuning(own.tuning)
        try:
            tuning.attach(model)
        except UsageError as error:
            refusals[method] = str(error)
        else:
            tuning.detach()
    return refusals


def _summarize(out: Path, method: Method, found: SeedsResult[TuneResult]) -> MethodSummary:
    results = dict(found.results)
    sizes = [(folder_of(out / method, one) / ADAPTER_NAME).stat().st_size for one in results]
    number = len(results)
    parameters = sum(one.tuning_parameters for one in results.values()) / number
    return MethodSummary(
        method=method,
        tuning_parameters=parameters,
        share=parameters * number / sum(one.parameters for one in results.values()),
        top1=found.top1,
        seconds=sum(one.seconds for one in results.values()) / number,
        adapter_bytes=sum(sizes) / number,
        results=results,
    )


def _write_report(out: Path, config: TuneConfig, result: MethodsResult) -> None:
    groups: dict[str, list[Metrics]] = {
        row.method: [Run.open(folder_of(out / row.method, seed)).metrics() for seed in row.results]
        for row in result.rows
    }
    first = result.rows[0]
    info = Run.open(folder_of(out / first.method, next(iter(first.results)))).info
    settings = flatten(to_mapping(config))
    settings["tuning.method"] = ", ".join(groups)
    settings["run.seed"] = ", ".join(map(str, first.results))
    bars = [Bar(row.method, row.top1.mean) for row in result.rows]
    unfit = [[method, why] for method, why in result.skipped.items()]
    write_report(
        out,
        title=f"Tuning {out.name}",
        lead=f"{config.model.name}, {counted(len(result.rows), 'way')} to tune it, "
        f"{counted(len(first.results), 'seed')} each.",
        sections=[
            Section("Methods", table([row.cells() for row in result.rows], header=HEADER)),
            Section(
                "Accuracy", bar_chart(bars, title="Validation top-1", unit_label="share of samples")
            ),
            *([Section("Left out", table(unfit, header=["method", "why"]))] if unfit else []),
            Section("Learning curves", group_curves(groups), "Faint: the seeds one by one."),
        ],
        settings=settings,
        environment=info["environment"],
    )
