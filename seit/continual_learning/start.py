"""`seit continual`: learn the tasks of a stream one after the other."""

import logging
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seit.augment import TokenAugment
from seit.classes import listed
from seit.config import flatten, to_mapping
from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.feeds import Rows
from seit.continual_learning.learners.base import Learner, Setting
from seit.continual_learning.loop import Running
from seit.continual_learning.memory.media import make_medium
from seit.continual_learning.memory.policies import Policy
from seit.continual_learning.memory.replay import Memory
from seit.continual_learning.network import Network
from seit.continual_learning.report import write_continual_report
from seit.continual_learning.result import ContinualResult, make_result, recorded_result
from seit.continual_learning.streams.plan import make_stream
from seit.errors import UsageError
from seit.locks import locked_folder
from seit.models import (
    TUNINGS,
    base_fingerprint,
    build_backbone,
    is_of_head,
    load_weights,
    make_tuning,
)
from seit.numbers import counted
from seit.progress import Progress
from seit.shards import Store, as_store
from seit.training import (
    REPORT_NAME,
    RUN_NAME,
    Ranks,
    Run,
    check_tokens,
    choose_attention,
    enter_run,
    environment,
    finished_figures,
    has_to_end,
    join_ranks,
    learned_labels,
    make_augment,
    make_autocast,
    network_changes,
    origin_sections,
    plain_weights,
    starting_from,
    withdrawn_if_refused,
)

_LOG = logging.getLogger(__name__)
LEARNER_NAME = "learner.safetensors"
"""File in the run folder with the trained tensors and the state of the method."""


def continual(
    config: ContinualConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> ContinualResult:
    """Learn the tasks of a stream over ``store`` and write a run folder to ``out``.

    Writes `learner.safetensors`, everything trained and kept; the backbone
    stays in the run that it came from.

    Arguments, ranks and errors are those of :func:`seit.training.train`; any batch is shared by
    any number of ranks, and a run also resumes within a task.
    The run of ``init_from``, whose backbone is adapted, is required to resume. Without one the
    backbone has random weights, with a warning if most of it stays frozen.

    Raises:
        UsageError: also if several ranks would learn the statistics of batch norms.
    """
    store = as_store(store)
    config, out = starting_from(config, init_from), Path(out)
    with join_ranks(config.run.device) as ranks:
        if ranks.is_main and not resume:
            Run.check_new(out)
        finished = finished_figures(out, config, store) if resume else None
        if finished is not None and not has_to_end(Run(out), (LEARNER_NAME, REPORT_NAME)):
            return recorded_result(finished)
        with locked_folder(out) if ranks.is_main else nullcontext():
            notify = progress if ranks.is_main else None
            result = _continual(config, store, out, ranks, resume=resume, progress=notify)
            ranks.wait()
        return result


def _continual(
    config: ContinualConfig,
    store: Store,
    out: Path,
    ranks: Ranks,
    *,
    resume: bool,
    progress: Progress | None,
) -> ContinualResult:
    """Learn all remaining tasks in a folder that the main rank has locked."""
    started = time.perf_counter()
    torch.manual_seed(config.run.seed)
    device = ranks.device
    stream = make_stream(config, store)
    augment = make_augment(store, config, device)
    assert isinstance(augment, TokenAugment), "pixels are refused by the config"
    network, backbone = _make_network(config, store, augment)
    if ranks.world_size > 1 and config.learner.takes_steps and network.learns_statistics:
        raise UsageError(
            f"{config.model.name} has batch norms, whose statistics a continual run learns in one "
            f"process, and torchrun started {ranks.world_size}; call it without torchrun, or tune "
            "less, such as by --pet adapter, or another network"
        )
    begun = {"backbone": backbone, "pretraining": _pretraining(config, store)}
    network.to(device)
    choose_attention(network, config, device)
    ranks.adopt(network.trained_state().values())
    if ranks.is_main:
        _LOG.info("reading %s", config.data.train_split)
    train = Rows(store[config.data.train_split], augment, device)
    setting = Setting(
        config=config,
        stream=stream,
        network=network,
        memory=_make_memory(config, store, device) if config.learner.uses_memory else None,
        augment=augment,
        ranks=ranks,
        autocast=make_autocast(config, device),
        inputs_of=train.inputs,
        labels=train.labels,
    )
    learner = config.learner(setting)
    evaluated = Rows(store[config.data.val_split], augment, device)
    is_known = Run.exists(out)
    start = None if config.init_from is None else Path(config.init_from)
    warnings = _warnings(config)
    if ranks.is_main:
        enter_run(out, config, store, init_from=start, resume=resume)
        for text in warnings:
            _LOG.warning("%s", text)
    ranks.wait()
    run = Run.open(out)
    with withdrawn_if_refused(run, is_new=ranks.is_main and not is_known):
        if ranks.is_main:
            _check_begun(run, backbone=backbone, stream=stream.fingerprint)
        running = Running(learner, train, evaluated, run, progress)
        running.finish()
    seconds = time.perf_counter() - started
    lost = _memory_warnings(setting.memory, store)
    if ranks.is_main:
        for text in lost:
            _LOG.warning("%s", text)
    result = make_result(running, store, begun, seconds=seconds, warnings=warnings + lost)
    if run.info["status"] == "finished":  # only some files are missing
        result = recorded_result(run.info["result"])
    if ranks.is_main:
        _leave(run, learner, result, store)
    running.journal.close({k: one for k, one in result.metrics.items() if one is not None})
    return result


def _warnings(config: ContinualConfig) -> tuple[str, ...]:
    """List reasons to distrust the figures."""
    tuned = config.effective_tuning.method
    if config.init_from is not None or TUNINGS[tuned].trains_all:
        return ()
    return (
        f"the backbone has random weights, and {tuned} leaves most of them as they are, so that "
        f"the figures of {config.method} say next to nothing; name a pretrained run by "
        "--init-from, or train the whole backbone by --pet full",
    )


def _memory_warnings(memory: Memory | None, store: Store) -> tuple[str, ...]:
    """Say which classes the memory lost, if any."""
    if memory is None or not len(memory.lacking):
        return ()
    lacking, met = memory.lacking.tolist(), memory.describe()["classes_met"]
    names = listed([store.classes[label] for label in lacking])
    what = "no exemplar" if not len(memory) else f"none of {len(lacking):,} of {met:,} classes met"
    return (
        f"the memory of {memory.budget_bytes:,} bytes ended with {what}: {names}; raise "
        "memory.bytes, or choose a medium of smaller exemplars, such as tokens",
    )


def _make_network(
    config: ContinualConfig, store: Store, augment: TokenAugment
) -> tuple[Network, str]:
    """Return the network, and the fingerprint of its initial backbone."""
    backbone = build_backbone(
        config.model.name,
        channels=augment.channels,
        input_size=augment.output_size,
        stem=config.model.stem,
        num_classes=1,
        **config.model.timm_kwargs(),
    )
    if config.init_from is not None:
        run = Run.open(config.init_from)
        check_tokens(run, store)
        if run.settings.data.pixels is not None:
            raise UsageError(f"{run.path} was trained on pixels; start from a run on tokens")
        fresh = {k: one for k, one in backbone.state_dict().items() if is_of_head(backbone, k)}
        weights = {k: one for k, one in plain_weights(run).items() if not is_of_head(backbone, k)}
        reason = network_changes(config, run)
        load_weights(backbone, weights | fresh, origin=str(run.path), reason=reason)
    num_features = int(backbone.head_hidden_size)  # type: ignore[arg-type] # of timm's models
    backbone.reset_classifier(0)  # type: ignore[operator]
    found = base_fingerprint(backbone)  # before modules with a start of their own join it
    network = Network(
        backbone,
        make_tuning(config.effective_tuning),
        num_classes=len(store.classes),
        num_features=num_features,
    )
    return network, found


def _pretraining(config: ContinualConfig, store: Store) -> dict[str, Any] | None:
    """Return how the backbone was pretrained; with labels, it may know future classes.

    The labels are those of all runs that its weights come from; None if they are not recorded.
    """
    if config.init_from is None:
        return None
    run = Run.open(config.init_from)
    labels = learned_labels(run)
    known = None if labels is None else len(set(labels) & set(store.classes))
    return {"objective": run.objective, "classes_of_the_stream": known}


def _make_memory(config: ContinualConfig, store: Store, device: torch.device) -> Memory:
    wanted = config.memory
    split = store[config.data.train_split]
    medium = make_medium(
        wanted.medium, split, source=wanted.source, store=store, device=device, root=wanted.root
    )
    policy: Policy = "reservoir" if config.task_free else "balanced"
    if wanted.policy != "auto":
        policy = wanted.policy
    return Memory(
        medium,
        budget_bytes=wanted.bytes,
        num_classes=len(store.classes),
        policy=config.learner.policy or policy,
        seed=config.run.seed,
        extra_bytes=2 * len(store.classes) if config.learner.keeps_logits else 0,
    )


def _check_begun(run: Run, *, backbone: str, stream: str) -> None:
    """Record backbone and stream of a new run, and refuse others on resume."""
    info = run.info
    if info.setdefault("backbone", backbone) != backbone:
        raise UsageError(
            f"{run.path} was started with another backbone than that of --init-from; name the run "
            "that it was started with"
        )
    if info.setdefault("stream", stream) != stream:
        raise UsageError(
            f"{run.path} was started on another stream: the file of stream.order or stream.domains "
            "has changed since; put it back, or choose another --out"
        )
    run.write_info(info)


def _leave(run: Run, learner: Learner, result: ContinualResult, store: Store) -> None:
    """Write the files of a finished run."""
    run.save_tensors(LEARNER_NAME, learner.network.trained_state() | learner.state())
    ranks = learner.setting.ranks
    info = {
        **run.info,
        "result": asdict(result),
        "ranks": ranks.world_size,
        "environment": environment(ranks.device),
    }
    config = learner.config
    write_continual_report(
        run.path,
        title=f"Run {run.path.name}",
        lead=f"{config.method} on {counted(len(result.accuracy_matrix), 'task')} of "
        f"{store.folder}: "
        f"{result.last_accuracy:.1%} after the last one, {result.average_accuracy:.1%} on average.",
        result={
            "accuracy_matrix": result.accuracy_matrix,
            "accuracies": result.experts,
            "pooled": result.pooled,
            "metrics": result.metrics,
            "ledger": result.ledger,
            "stream": result.stream,
            **({"curve": result.curve} if result.curve["samples"] else {}),
        },
        settings=flatten(to_mapping(config)),
        environment=info["environment"],
        warnings=result.warnings,
        origins=origin_sections(info, where=str(run.path / RUN_NAME)),
    )
    run.write_info({**info, "status": "finished"})
