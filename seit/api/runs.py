"""Verbs that make runs: train, pretrain, tune, compress, continual.

Each imports its own wing, and none of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seit.api.plans import ALL, choose_methods, plan_run
from seit.errors import UsageError
from seit.models import METHODS, Method
from seit.progress import Progress
from seit.shards import Store
from seit.training import (
    ADAPTER_NAME,
    MethodsResult,
    SeedsResult,
    SoundData,
    SpeechTuneConfig,
    SpeechTuneResult,
    SweepConfig,
    SweepResult,
    TrainConfig,
    TrainResult,
    TuneConfig,
    TuneResult,
    find_pretrained,
    open_sounds,
    sweep_settings,
    train as train_classifier,
    train_seeds,
    tune as tune_backbone,
    tune_methods,
    tune_speech,
    tune_speech_methods,
)

if TYPE_CHECKING:
    from seit.compression import CompressResult, MethodsComparison
    from seit.continual_learning import ContinualResult
    from seit.pretraining import PretrainResult


@dataclass(frozen=True, kw_only=True, repr=False)
class TunedRun(TuneResult):
    """Result of a tuning run.

    Attributes:
        adapter_bytes: size of `adapter.safetensors`.
    """

    adapter_bytes: int


@dataclass(frozen=True, kw_only=True, repr=False)
class TunedSpeechRun(SpeechTuneResult):
    """Result of a run that tuned a speech model.

    Attributes:
        adapter_bytes: size of `adapter.safetensors`.
    """

    adapter_bytes: int


def train(
    store: Store | str | Path,
    *,
    out: str | Path,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    seeds: int = 1,
    download: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> TrainResult | SeedsResult[TrainResult]:
    """Train a classifier on the tokens of a store and leave a run folder at ``out``.

    Args:
        store: a path or URL, or an open store.
        out: a new folder for the run.
        recipe: a recipe's name; by default, unless ``config`` is given, the one for the store's
            data, fitted to its grid and to few samples.
        config: a YAML file's path, a mapping of settings, or a `TrainConfig`.
        resume: continue the run at ``out`` if there is one, bit for bit; its schedule may have
            become longer.
        seeds: number of seeds; with several, each run gets a folder of ``out``.
        download: fetch ``pretrained="timm:NAME"`` from the hub; nothing is fetched otherwise.
        progress: called after each step with (steps done, total, latest figures).
        **changes: settings by flag (``steps``, ``epochs``, ``model``, ``batch_size``, ``seed``,
            ``device``, ``pixels``, ``init_from``, ``pretrained``) or by path
            (``**{"optim.lr": 1e-3}``). They win over ``SEIT_…`` variables, these over ``config``,
            that over ``recipe``.

    Raises:
        UsageError: a setting is unknown (the nearest name is given), or settings, store and folder
            do not fit together; nothing was changed.
        SeitError: the loss is no longer finite, or a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the current step and a checkpoint.

    Example:
        >>> result = seit.train("store", out="run", recipe="small-cpu", steps=100)
        >>> result.top1
    """
    settings = plan_run(
        "train", store, out=out, recipe=recipe, config=config, resume=resume, **changes
    )
    assert isinstance(settings, TrainConfig)
    if settings.pretrained is not None:
        file = find_pretrained(settings.pretrained, download=download)
        settings = replace(settings, pretrained=file)
    if seeds != 1:
        return train_seeds(settings, store, out, seeds=seeds, resume=resume, progress=progress)
    return train_classifier(settings, store, out=out, resume=resume, progress=progress)


def pretrain(
    store: Store | str | Path,
    *,
    out: str | Path,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> "PretrainResult":
    """Pretrain an encoder on the tokens of a store, without labels.

    `seit.train(store, init_from=out, …)` fine-tunes it.

    Args:
        store: a path or URL, or an open store.
        out: a new folder for the run.
        recipe: a recipe's name; the objective's small one unless ``config`` is given.
        config: a YAML file's path, a mapping of settings, or a `PretrainConfig`.
        resume: continue the run at ``out`` if there is one, bit for bit.
        progress: called after each step with (steps done, total, latest figures).
        **changes: settings by flag (``objective``, ``sparsity``, ``steps``, …) or by path; see
            `train`.

    Raises:
        UsageError: see `train`.
        SeitError: the loss is no longer finite, or a file cannot be written.

    Example:
        >>> seit.pretrain("store", out="encoder", objective="mtm", steps=100).token_accuracy
    """
    from seit.pretraining import PretrainConfig, pretrain as pretrain_encoder

    settings = plan_run(
        "pretrain", store, out=out, recipe=recipe, config=config, resume=resume, **changes
    )
    assert isinstance(settings, PretrainConfig)
    return pretrain_encoder(settings, store, out=out, resume=resume, progress=progress)


def tune(
    store: Store | str | Path,
    *,
    out: str | Path,
    method: str | Sequence[str] | None = None,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    seeds: int = 1,
    backbone: str | Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> TunedRun | TunedSpeechRun | MethodsResult:
    """Fine-tune a few weights of a finished run's backbone or of a speech model; compare methods.

    Args:
        store: a path or URL, or an open store; with ``backbone``, a corpus of sounds as `tokenize`
            takes it.
        out: a new folder for the run.
        method: a method's name; several, or ``"all"``, make runs in OUT/METHOD/seed-0 … and a
            table.
        recipe: a recipe's name; the small one unless ``config`` is given.
        config: a YAML file's path, a mapping of settings, or a `TuneConfig`.
        resume: continue the run at ``out`` if there is one, bit for bit.
        seeds: number of seeds of each method.
        backbone: folder of a speech model as transformers saves it, such as ``"hf:hubert"``, to
            tune on waveforms; see docs/speech.md.
        download: whether the name of a speech model on the hub may be downloaded.
        progress: called after each step with (steps done, total, latest figures).
        **changes: settings by flag (``init_from``, ``steps``, …) or by path; see `train`.

    Raises:
        UsageError: no run is named by ``init_from``, or see `train`.
        SeitError: the loss is no longer finite, or a file cannot be written.

    Example:
        >>> seit.tune("store", out="tuned", init_from="run", method="lora", steps=50).top1
    """
    methods = choose_methods(method, METHODS)
    changes |= {"method": method, "backbone": backbone}
    settings = plan_run(
        "tune", store, out=out, recipe=recipe, config=config, resume=resume, **changes
    )
    if isinstance(settings, SpeechTuneConfig):
        return _tune_speech(
            settings,
            open_sounds(_source_of(store), seconds=settings.speech.seconds),
            out=Path(out),
            methods=methods,
            skip_unfit=method == ALL,
            seeds=seeds,
            resume=resume,
            download=download,
            progress=progress,
        )
    assert isinstance(settings, TuneConfig)
    if len(methods) > 1 or seeds != 1:
        return tune_methods(
            settings,
            store,
            out=out,
            methods=methods or (settings.tuning.method,),
            seeds=seeds,
            skip_unfit=method == ALL,
            resume=resume,
            progress=progress,
        )
    result = tune_backbone(settings, store, out=out, resume=resume, progress=progress)
    adapter = Path(out) / ADAPTER_NAME  # of the main rank's machine
    size = adapter.stat().st_size if adapter.is_file() else 0
    figures = {field.name: getattr(result, field.name) for field in fields(result)}
    return TunedRun(**figures, adapter_bytes=size)


def _tune_speech(
    settings: SpeechTuneConfig,
    data: SoundData,
    *,
    out: Path,
    methods: Sequence[Method],
    skip_unfit: bool,
    seeds: int,
    resume: bool,
    download: bool,
    progress: Progress | None,
) -> TunedSpeechRun | MethodsResult:
    if len(methods) > 1 or seeds != 1:
        return tune_speech_methods(
            settings,
            data,
            out=out,
            methods=methods or (settings.tuning.method,),
            seeds=seeds,
            skip_unfit=skip_unfit,
            resume=resume,
            download=download,
            progress=progress,
        )
    result = tune_speech(
        settings, data, out=out, download=download, resume=resume, progress=progress
    )
    adapter = out / ADAPTER_NAME  # of the main rank's machine
    size = adapter.stat().st_size if adapter.is_file() else 0
    return TunedSpeechRun(**vars(result), adapter_bytes=size)


def _source_of(store: Store | str | Path) -> str | Path:
    if isinstance(store, Store):
        raise UsageError("a speech model takes sounds; pass the corpus that the store was made of")
    return store


def compress(
    run: str | Path,
    *,
    store: Store | str | Path,
    out: str | Path,
    method: str | Sequence[str] | None = None,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    seeds: int = 1,
    progress: Progress | None = None,
    **changes: Any,
) -> "CompressResult | MethodsComparison":
    """Make a finished classifier smaller and leave a run folder at ``out``, or compare methods.

    Args:
        run: a finished run's folder.
        store: the store of the run: a path or URL, or an open store. Its training split calibrates
            and trains, its validation split is only evaluated.
        out: a new folder for the run.
        method: a method's name; several, or ``"all"``, make runs in OUT/METHOD/seed-0 … and a
            table with the fronts of accuracy over bytes, times and operations.
        recipe: a recipe's name; the small one unless ``config`` is given.
        config: a YAML file's path, a mapping of settings, or a `CompressConfig`.
        resume: continue the run at ``out`` if there is one.
        seeds: number of seeds of each method.
        progress: called after each step with (steps done, total, latest figures).
        **changes: settings by flag (``steps``, …) or by path; see `train`.

    Raises:
        UsageError: the run is compressed already, or see `train`.
        SeitError: a file cannot be written, or a loss is not finite.

    Example:
        >>> seit.compress("run", store="store", out="small", method="w4").bytes
    """
    from seit.compression import (
        METHODS as COMPRESSIONS,
        CompressConfig,
        compress as compress_run,
        compress_methods,
    )

    methods = choose_methods(method, COMPRESSIONS)
    changes |= {"init_from": run, "method": method}
    settings = plan_run(
        "compress", store, out=out, recipe=recipe, config=config, resume=resume, **changes
    )
    assert isinstance(settings, CompressConfig)
    if len(methods) > 1 or seeds != 1:
        return compress_methods(
            settings,
            store,
            out=out,
            methods=methods or (settings.compression.method,),
            seeds=seeds,
            skip_unfit=method == ALL,
            resume=resume,
            progress=progress,
        )
    return compress_run(settings, store, out=out, resume=resume, progress=progress)


def sweep(
    store: Store | str | Path,
    *,
    out: str | Path,
    space: str | Path | Mapping[str, Any],
    trials: int = 9,
    rungs: int = 3,
    reduction: int = 3,
    dev: float = 0.1,
    budget: str | int | None = None,
    max_bytes: int | None = None,
    max_flops: int | None = None,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> SweepResult:
    """Search settings of a recipe by random draws and successive halving.

    Trials are judged on samples held out of the training split; the validation split is read once,
    for the winner, whose settings become the recipe OUT/best.yaml.

    Args:
        store: a path or URL, or an open store.
        out: a new folder; trial 7 is the run `trial-007` in it.
        space: a YAML file, or a mapping, of settings: lists of choices, and ranges ``{low, high,
            log}``.
        trials: number of trials.
        rungs: rungs of successive halving; with 1, all trials are trained to the end.
        reduction: factor between the steps of rungs, and between the numbers of trials.
        dev: share of the training samples to hold out, 0–1.
        budget: most steps of all trials, or most seconds, such as ``"600s"``; fewer trials are
            drawn if they take more.
        max_bytes: largest weights in float32, in bytes; larger networks are not trained.
        max_flops: most operations of a forward pass of one sample, likewise.
        recipe: a recipe's name; see `train`.
        config: a YAML file's path, a mapping of settings, or a `TrainConfig`.
        resume: continue the sweep at ``out`` if there is one, to the same result.
        progress: called after each step with (steps done, total, latest figures) of all trials.
        **changes: settings of all trials by flag (``steps``, …) or by path; see `train`.

    Raises:
        UsageError: space, settings, store and folder do not fit together, or no draw meets the
            limits; see `train`.
        SeitError: a file cannot be written.

    Example:
        >>> space = {"optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "model.depth": [2, 4]}
        >>> seit.sweep("store", out="sweep", space=space, trials=9, steps=900).settings
    """
    extent = SweepConfig(
        trials=trials,
        rungs=rungs,
        reduction=reduction,
        dev=dev,
        budget=None if budget is None else str(budget),
        max_bytes=max_bytes,
        max_flops=max_flops,
    )
    settings = plan_run("train", store, recipe=recipe, config=config, **changes)
    assert isinstance(settings, TrainConfig)
    return sweep_settings(
        settings, store, out=out, space=space, extent=extent, resume=resume, progress=progress
    )


def continual(
    store: Store | str | Path,
    *,
    out: str | Path,
    recipe: str | None = None,
    config: object = None,
    resume: bool = False,
    progress: Progress | None = None,
    **changes: Any,
) -> "ContinualResult":
    """Learn the classes of a store task by task and leave a run folder at ``out``.

    Args:
        store: a path or URL, or an open store.
        out: a new folder for the run.
        recipe: a recipe's name; `continual-small-cpu` unless ``config`` is given.
        config: a YAML file's path, a mapping of settings, or a `ContinualConfig`.
        resume: continue the run at ``out`` if there is one, bit for bit.
        progress: called after each step with (steps done, total, latest figures).
        **changes: settings by flag (``method``, ``pet``, ``increment``, ``initial``, ``order``,
            ``memory``, ``init_from``, ``steps``, …) or by path; see `train`.

    Raises:
        UsageError: see `train`.
        SeitError: the loss is no longer finite, or a file cannot be written.

    Example:
        >>> seit.continual("store", out="tasks", method="lae", increment=2).last_accuracy
    """
    from seit.continual_learning import ContinualConfig, continual as learn_tasks

    settings = plan_run(
        "continual", store, out=out, recipe=recipe, config=config, resume=resume, **changes
    )
    assert isinstance(settings, ContinualConfig)
    return learn_tasks(settings, store, out=out, resume=resume, progress=progress)
