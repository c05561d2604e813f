"""`seit continual`: a run that learns tasks one after the other.

Legend: T tasks, C classes of the store.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.augment import TokenAugment
from seit.devices import choose_device
from seit.errors import UsageError
from seit.models import build_backbone, load_weights
from seit.models.classifier import is_of_head
from seit.models.tuning import base_fingerprint, make_tuning
from seit.settings import flatten, to_mapping
from seit.shards import Store, open_store
from seit.train.continual.answering import JOINT, Answers
from seit.train.continual.config import ContinualConfig
from seit.train.continual.feeding import Rows
from seit.train.continual.lae import OFFLINE
from seit.train.continual.learner import Learner, Setting
from seit.train.continual.learners import LEARNERS
from seit.train.continual.ledger import Ledger, tensor_bytes
from seit.train.continual.media import make_medium
from seit.train.continual.metrics import FORMULAS, as_lists, summarise
from seit.train.continual.network import Network
from seit.train.continual.planning import make_stream
from seit.train.continual.policies import Policy
from seit.train.continual.replay import Memory
from seit.train.continual.report import write_continual_report
from seit.train.continual.running import Notify, Running
from seit.train.continual.streams import Stream
from seit.train.feeds import make_augment
from seit.train.initialising import check_tokens
from seit.train.precision import make_autocast
from seit.train.run import REPORT_NAME, TOKENIZER_NAME, Run, environment
from seit.train.stopping import listen

LEARNER_NAME = "learner.safetensors"
"""In the run's folder: what was trained, and what the method keeps."""


@dataclass(frozen=True)
class ContinualResult:
    """What a run came to; accuracies are shares, 0–1, and None what is not defined.

    Attributes:
        last_accuracy: mean over tasks after the last one.
        average_accuracy: mean over tasks t of the mean over tasks up to t, after t.
        forgetting: Chaudhry et al.'s.
        accuracy_matrix: T rows of T, row t after task t; columns of the future too.
        task_incremental_matrix: the same among the classes of a sample's own task.
        metrics: all figures by unambiguous names.
        formulas: what they mean.
        experts: of each one who answers, its accuracies after each task; ``all`` is what counts.
        pooled: the same, each sample counted alike.
        curve: samples seen and accuracy, of a stream that is seen once.
        ledger: what takes how many bytes.
        stream: the protocol: order, sizes, fingerprint of the split.
        protocol: method, mask, memory, fingerprint of the backbone.
        network: sha256 of everything that was trained.
        trained_parameters: of backbone and head together.
        steps: of the whole run.
        samples: new ones that steps took, in this call.
        samples_per_second: of them, evaluation left out.
        seconds: duration of this call.
    """

    last_accuracy: float
    average_accuracy: float
    forgetting: float | None
    accuracy_matrix: list[list[float | None]]
    task_incremental_matrix: list[list[float | None]]
    metrics: dict[str, float | None]
    formulas: dict[str, str]
    experts: dict[str, list[float | None]]
    pooled: dict[str, list[float | None]]
    curve: dict[str, list[float]]
    ledger: dict[str, int]
    stream: dict[str, Any]
    protocol: dict[str, Any]
    network: str
    trained_parameters: int
    steps: int
    samples: int
    samples_per_second: float
    seconds: float


def continual(
    config: ContinualConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Notify | None = None,
) -> ContinualResult:
    """Learn the tasks of a stream over ``store`` and leave a run folder at ``out``.

    One process. The folder gets `learner.safetensors`, all that was trained and kept; the backbone
    stays in the run that it came from.

    Args:
        config: what to do.
        store: the store, opened or by path.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: go on where that run stopped, in the middle of a task too; figures and network are
            those of an undisturbed run on the same CPU, bit for bit.
        init_from: a finished run whose backbone is adapted; without one it has random weights.
        progress: called after each step.

    Raises:
        UsageError: settings, store, backbone and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the step under way and a checkpoint.
    """
    started = time.perf_counter()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "a continual run takes one process, and torchrun started "
            f"{os.environ['WORLD_SIZE']}; call it without torchrun"
        )
    store = store if isinstance(store, Store) else open_store(store)
    out = Path(out)
    if resume and Run.exists(out):
        begun = Run.open(out)
        begun.check_same(config, store)
        if begun.info["status"] == "finished":
            return _recorded(begun.info["result"])
    torch.manual_seed(config.run.seed)
    device = choose_device(config.run.device)
    stream = make_stream(config, store)
    augment = make_augment(store, config, device)
    assert isinstance(augment, TokenAugment), "pixels are refused by the config"
    network, backbone = _make_network(config, store, augment, init_from)
    network.to(device)
    train = Rows(store[config.data.train_split], augment, device)
    setting = Setting(
        config=config,
        stream=stream,
        network=network,
        memory=_make_memory(config, store) if config.rehearses else None,
        augment=augment,
        device=device,
        autocast=make_autocast(config, device),
        inputs_of=train.inputs,
        labels=train.labels,
    )
    learner = LEARNERS[config.method](setting)
    Run.start(out, config, store, resume=resume)
    run = Run.open(out)
    _check_backbone(run, backbone)
    evaluated = Rows(store[config.data.val_split], augment, device)
    running = Running(learner, train, evaluated, run, progress)
    with listen() as stop:
        if not running.finish(stop):
            raise KeyboardInterrupt
    result = _result(running, store, backbone, seconds=time.perf_counter() - started)
    _leave(run, learner, result, store, device)
    return result


def _make_network(
    config: ContinualConfig, store: Store, augment: TokenAugment, init_from: str | Path | None
) -> tuple[Network, str]:
    """The network, and the fingerprint of the backbone that it begins with."""
    backbone = build_backbone(
        config.model.name,
        channels=augment.channels,
        input_size=augment.output_size,
        stem=config.model.stem,
        num_classes=1,
        **config.model.timm_kwargs(),
    )
    if init_from is not None:
        run = Run.open(init_from)
        check_tokens(run, store)
        if run.settings.data.pixels is not None:
            raise UsageError(f"{run.path} was trained on pixels; start from a run on tokens")
        fresh = {k: one for k, one in backbone.state_dict().items() if is_of_head(backbone, k)}
        weights = {k: one for k, one in run.load_weights().items() if not is_of_head(backbone, k)}
        load_weights(backbone, weights | fresh, origin=str(run.path))
    num_features = int(backbone.head_hidden_size)  # type: ignore[arg-type] # of timm's models
    backbone.reset_classifier(0)  # type: ignore[operator]
    network = Network(
        backbone,
        make_tuning(config.effective_tuning),
        num_classes=len(store.classes),
        num_features=num_features,
    )
    return network, base_fingerprint(backbone)


def _make_memory(config: ContinualConfig, store: Store) -> Memory:
    wanted = config.memory
    split = store[config.data.train_split]
    medium = make_medium(wanted.medium, split, source=wanted.source, store=store)
    own: dict[str, Policy] = {"icarl": "herding", "gdumb": "greedy"}
    policy: Policy = "reservoir" if config.task_free else "balanced"
    if wanted.policy != "auto":
        policy = wanted.policy
    return Memory(
        medium,
        budget_bytes=wanted.bytes,
        num_classes=len(store.classes),
        policy=own.get(config.method, policy),
        seed=config.run.seed,
        extra_bytes=2 * len(store.classes) if config.method == "der++" else 0,
    )


def _check_backbone(run: Run, fingerprint: str) -> None:
    """Remember the backbone of a new run, and refuse another one when it goes on."""
    info = run.info
    known = info.setdefault("backbone", fingerprint)
    if known != fingerprint:
        raise UsageError(
            f"{run.path} was begun with another backbone than --init-from gives now; name the run "
            "that it was begun with"
        )
    run.write_info(info)


def _result(running: Running, store: Store, backbone: str, *, seconds: float) -> ContinualResult:
    config, progress = running.config, running.progress
    learner, stream = running.learner, running.setting.stream
    assert progress.initial is not None
    counts = np.array([len(task.val_rows) for task in stream.tasks])
    answers = progress.answers
    hits = np.stack([one.hits[JOINT] for one in answers])
    matrix = hits / counts
    of_task = np.stack([one.task_hits[JOINT] for one in answers]) / counts
    curve = {
        "samples": [samples for samples, _ in progress.curve],
        "accuracy": [accuracy for _, accuracy in progress.curve],
    }
    metrics = summarise(
        matrix,
        hits=hits,
        counts=counts,
        initial=progress.initial.hits[JOINT] / counts,
        task_incremental=of_task,
        curve=curve["accuracy"] or None,
    )
    last, average = metrics["last_accuracy"], metrics["average_accuracy"]
    assert last is not None
    assert average is not None
    network = learner.network
    return ContinualResult(
        last_accuracy=last,
        average_accuracy=average,
        forgetting=metrics["forgetting"],
        accuracy_matrix=as_lists(matrix),
        task_incremental_matrix=as_lists(of_task),
        metrics=metrics,
        formulas={name: FORMULAS[name] for name in metrics},
        experts=_by_expert(answers, counts, is_pooled=False),
        pooled=_by_expert(answers, counts, is_pooled=True),
        curve=curve,
        ledger=_ledger(running, store).describe(),
        stream=stream.describe(),
        protocol=_protocol(config, stream, backbone, learner),
        network=_fingerprint(network.trained_state() | learner.state()),
        trained_parameters=_count_trained(learner),
        steps=progress.number,
        samples=running.samples_here,
        samples_per_second=(
            running.samples_here / running.busy_seconds if running.busy_seconds else 0.0
        ),
        seconds=seconds,
    )


def _by_expert(
    answers: list[Answers], counts: npt.NDArray[np.int64], *, is_pooled: bool
) -> dict[str, list[float | None]]:
    """Accuracies after each task, by who answered; None where one did not yet."""
    names = {name for one in answers for name in one.hits}
    found: dict[str, list[float | None]] = {}
    for name in sorted(names):
        found[name] = []
        for after, one in enumerate(answers):
            if name not in one.hits:
                found[name].append(None)
                continue
            own, total = one.hits[name][: after + 1], counts[: after + 1]
            share = own.sum() / total.sum() if is_pooled else (own / total).mean()
            found[name].append(float(share))
    return found


def _protocol(
    config: ContinualConfig, stream: Stream, backbone: str, learner: Learner
) -> dict[str, Any]:
    memory = learner.setting.memory
    return {
        "method": config.method,
        "tuning": to_mapping(config.effective_tuning),
        "mask": "task" if config.masks_to_task else "seen",
        "order": list(stream.class_order),
        "split": stream.fingerprint,
        "backbone": backbone,
        "memory": memory.describe() if memory is not None else None,
        "seed": config.run.seed,
    }


def _ledger(running: Running, store: Store) -> Ledger:
    """What takes how many bytes at the end of the run."""
    learner, memory = running.learner, running.setting.memory
    network, stored = learner.network, learner.stored()
    frozen, own = network.backbone.state_dict(), set(network.tuned)
    files = [file for file in store.card.files if file.file == TOKENIZER_NAME]
    return Ledger(
        exemplar_payload_bytes=memory.payload_bytes if memory else 0,
        exemplar_label_bytes=memory.label_bytes if memory else 0,
        exemplar_extra_bytes=memory.extra_bytes if memory else 0,
        codebook_bytes=store.codebook.nbytes,
        tokenizer_bytes=sum(file.bytes for file in files),
        replays_pictures=memory is not None and running.config.memory.medium != "tokens",
        online_pet_bytes=tensor_bytes(network.tuned),
        offline_pet_bytes=tensor_bytes(stored.pop(OFFLINE, {})),
        head_bytes=tensor_bytes(network.head.state_dict()) if learner.takes_steps else 0,
        state_bytes=tensor_bytes(stored),
        optimizer_bytes=running.optimizer_bytes,
        backbone_bytes=tensor_bytes({key: one for key, one in frozen.items() if key not in own}),
        trainable_parameters=_count_trained(learner),
    )


def _count_trained(learner: Learner) -> int:
    """Parameters that steps change, of backbone and head together."""
    if not learner.takes_steps:
        return 0
    network = learner.network
    return sum(one.numel() for one in (*network.tuned.values(), *network.head.parameters()))


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _leave(
    run: Run, learner: Learner, result: ContinualResult, store: Store, device: torch.device
) -> None:
    """Write what a finished run leaves behind."""
    run.save_tensors(LEARNER_NAME, learner.network.trained_state() | learner.state())
    told = asdict(result)
    run.write_info(
        {
            **run.info,
            "status": "finished",
            "result": told,
            "environment": environment(device),
        }
    )
    config = learner.config
    write_continual_report(
        run.path / REPORT_NAME,
        title=f"Run {run.path.name}",
        lead=f"{config.method} on {len(result.accuracy_matrix)} tasks of {store.folder}: "
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
    )


def _recorded(told: Mapping[str, Any]) -> ContinualResult:
    names = {field.name for field in fields(ContinualResult)}
    return ContinualResult(**{name: value for name, value in told.items() if name in names})
