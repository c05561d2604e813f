"""Result of a continual run: accuracies by every definition, bytes, and the protocol.

Legend: T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.config import to_mapping
from seit.continual_learning.answers import JOINT, Answers
from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.learners.base import Learner
from seit.continual_learning.learners.lae import OFFLINE
from seit.continual_learning.ledger import Ledger, tensor_bytes
from seit.continual_learning.loop import Running
from seit.continual_learning.metrics import FORMULAS, as_lists, summarise
from seit.continual_learning.streams.tasks import Stream
from seit.documents import as_record
from seit.fingerprints import fingerprint
from seit.outcomes import Outcome
from seit.shards import Store
from seit.tokenizers import tokenizer_bytes


@dataclass(frozen=True, repr=False)
class ContinualResult(Outcome):
    """Result of a run; accuracies are shares, 0–1, and None if undefined.

    Attributes:
        last_accuracy: mean accuracy over tasks after the last one.
        average_accuracy: mean over tasks t of the mean over tasks up to t, after t.
        forgetting: as defined by Chaudhry et al.
        accuracy_matrix: (T, T), row t after task t, including columns of future tasks.
        task_incremental_matrix: the same, among the classes of a sample's own task.
        metrics: all metrics by unambiguous names.
        formulas: their definitions.
        experts: accuracies of each expert after each task; ``all`` is the combined prediction.
        pooled: the same, each sample weighed equally.
        curve: samples seen and accuracy, for a task-free stream.
        ledger: bytes by purpose.
        stream: order, sizes and fingerprint of the split.
        protocol: method, mask, memory, and the backbone's fingerprint and pretraining.
        network: sha256 of all trained tensors.
        trained_parameters: of backbone and head together.
        steps: steps of the whole run.
        samples: new samples trained on in this call.
        samples_per_second: training throughput, excluding evaluation.
        seconds: duration of this call.
        warnings: reasons to distrust the figures, one line each.
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
    warnings: tuple[str, ...] = ()


def make_result(
    running: Running,
    store: Store,
    begun: Mapping[str, Any],
    *,
    seconds: float,
    warnings: tuple[str, ...] = (),
) -> ContinualResult:
    """Return the result of a run that has learned all tasks.

    Args:
        running: the finished run.
        store: store that it learned from.
        begun: entries of the protocol about the backbone and its pretraining.
        seconds: duration of this call.
        warnings: reasons to distrust the figures, one line each.
    """
    config, progress = running.config, running.position
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
    num_due = {segment.samples: segment.num_due for segment in running.segments}
    at_equal_distances = [
        share for samples, share in progress.curve for _ in range(num_due[int(samples)])
    ]
    metrics = summarise(
        matrix,
        hits=hits,
        counts=counts,
        initial=progress.initial.hits[JOINT] / counts,
        task_incremental=of_task,
        curve=at_equal_distances or None,
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
        protocol=_protocol(config, stream, begun, learner),
        network=fingerprint(network.trained_state() | learner.state()),
        trained_parameters=_count_trained(learner),
        steps=progress.number,
        samples=running.journal.samples,
        samples_per_second=(running.journal.samples_per_second if running.journal.steps else 0.0),
        seconds=seconds,
        warnings=warnings,
    )


def _by_expert(
    answers: list[Answers], counts: npt.NDArray[np.int64], *, is_pooled: bool
) -> dict[str, list[float | None]]:
    """Return accuracies after each task by expert; None before an expert exists."""
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
    config: ContinualConfig, stream: Stream, begun: Mapping[str, Any], learner: Learner
) -> dict[str, Any]:
    memory = learner.setting.memory
    return {
        "method": config.method,
        "tuning": to_mapping(config.effective_tuning),
        "mask": "task" if config.masks_to_task else "seen",
        "order": list(stream.class_order),
        "split": stream.fingerprint,
        **begun,
        "memory": memory.describe() if memory is not None else None,
        "seed": config.run.seed,
    }


def _ledger(running: Running, store: Store) -> Ledger:
    """Return the bytes by purpose at the end of the run."""
    learner, memory = running.learner, running.setting.memory
    network, stored = learner.network, learner.stored()
    own = {k: one for k, one in network.trained_state().items() if k.startswith("backbone.")}
    frozen = {f"backbone.{key}": one for key, one in network.backbone.state_dict().items()}
    split, kept = store[running.config.data.train_split], learner.kept_rows()
    of_label = 2 if len(store.classes) <= 1 << 16 else 4
    return Ledger(
        exemplar_payload_bytes=(
            memory.payload_bytes if memory else kept * split.layout.sample_bytes
        ),
        exemplar_label_bytes=memory.label_bytes if memory else kept * of_label,
        exemplar_extra_bytes=memory.extra_bytes if memory else 0,
        codebook_bytes=store.codebook.nbytes,
        tokenizer_bytes=len(tokenizer_bytes(store.load_tokenizer(), with_codebook=False)),
        replays_pictures=memory is not None and running.config.memory.medium != "tokens",
        online_pet_bytes=tensor_bytes(own),
        offline_pet_bytes=tensor_bytes(stored.pop(OFFLINE, {})),
        head_bytes=tensor_bytes(network.head.state_dict()) if learner.takes_steps else 0,
        state_bytes=tensor_bytes(stored),
        optimizer_bytes=running.position.optimizer_bytes,
        backbone_bytes=tensor_bytes({key: one for key, one in frozen.items() if key not in own}),
        trainable_parameters=_count_trained(learner),
    )


def _count_trained(learner: Learner) -> int:
    """Return the number of trained parameters of backbone and head."""
    if not learner.takes_steps:
        return 0
    network = learner.network
    return sum(one.numel() for one in (*network.tuned.values(), *network.head.parameters()))


def recorded_result(told: Mapping[str, Any]) -> ContinualResult:
    """Return the result recorded in `run.json` of a finished run.

    Raises:
        DamagedError: the record is not as written.
    """
    return as_record(told, ContinualResult, origin="the result in run.json")
