"""Base class of learners: facts about each, and the hooks that the loop calls.

Legend: B batch, C classes of the store, n samples.
"""

from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment import TokenAugment
from seit.continual_learning.memory.policies import Policy
from seit.continual_learning.memory.replay import Memory
from seit.continual_learning.network import Network
from seit.continual_learning.streams.tasks import Stream, Task
from seit.training import EVAL_BATCH, Ranks, ScheduleConfig

if TYPE_CHECKING:  # the settings look up facts about learners
    from seit.continual_learning.config import ContinualConfig

SMALLEST = -torch.inf
"""Logit of a class that must not be predicted."""


@dataclass(frozen=True)
class Setting:
    """Everything a learner works with.

    Attributes:
        memory: memory of exemplars; None for learners without one.
        augment: tokens → inputs.
        ranks: ranks of the run.
        autocast: context of forward passes.
        inputs_of: rows int64 (n,) of the training split → their inputs without augmentation, batch
            by batch.
        labels: int64 (N,), of the training split.
    """

    config: "ContinualConfig"
    stream: Stream
    network: Network
    memory: Memory | None
    augment: TokenAugment
    ranks: Ranks
    autocast: torch.autocast
    inputs_of: Callable[[npt.NDArray[np.int64]], Iterator[Tensor]]
    labels: npt.NDArray[np.int64]

    @property
    def device(self) -> torch.device:
        """Device of the run on this rank."""
        return self.ranks.device


@dataclass(frozen=True)
class StepBatch:
    """Samples of a step; those of all ranks make one batch.

    Attributes:
        inputs: (B, C, h, w), of the new samples of this rank.
        labels: int64 (B,).
        weight: weight of their mean loss in that of all ranks; see `part_of`.
        rows: int64 (n,), of the new samples of all ranks, in the training split.
        step: step of the task, from 0.
        total: steps of the task.
        number: step of the whole run, from 0.
    """

    inputs: Tensor
    labels: Tensor
    weight: float
    rows: npt.NDArray[np.int64]
    step: int
    total: int
    number: int


Masks: TypeAlias = Literal["task", "seen"] | None


class Learner(ABC):  # noqa: B024 — every method has a sensible default
    """Base class of continual learning methods.

    Attributes:
        takes_steps: whether it is trained by gradient steps.
        tunes_backbone: whether it changes the backbone; others train only what follows it.
        uses_memory: whether it keeps samples.
        policy: policy of its memory; None if ``memory.policy`` decides.
        keeps_logits: whether it stores logits with samples, in half precision.
        masks: classes in the loss of new samples in a `class` stream, `task` or `seen`; None for
            learners without such a loss.
        needs_tasks: whether it must know where tasks begin.
        needs_new_classes: whether every task must bring new classes.
        mixes_tasks: whether new samples of a step come from all tasks so far.
        averages_weights: whether it keeps an average of the tuned weights.
        seen: bool (C,), classes seen so far.
        task_classes: bool (C,), classes of the current task; all False in a task-free stream.
    """

    takes_steps: ClassVar[bool] = True
    tunes_backbone: ClassVar[bool] = True
    uses_memory: ClassVar[bool] = False
    policy: ClassVar[Policy | None] = None
    keeps_logits: ClassVar[bool] = False
    masks: ClassVar[Masks] = None
    needs_tasks: ClassVar[bool] = False
    needs_new_classes: ClassVar[bool] = False
    mixes_tasks: ClassVar[bool] = False
    averages_weights: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.config = setting.config
        self.network = setting.network
        size = setting.stream.num_classes
        self.seen = torch.zeros(size, dtype=torch.bool, device=setting.device)
        self.task_classes = self.seen.clone()

    def meet(self, classes: Sequence[int]) -> None:
        """Mark classes as seen."""
        self.seen[torch.tensor(classes, dtype=torch.int64, device=self.seen.device)] = True

    def begin_task(self, task: Task) -> None:
        """Start a task, if the stream has task boundaries."""
        self.meet(task.classes)
        self.task_classes.zero_()
        classes = torch.tensor(task.classes, dtype=torch.int64, device=self.seen.device)
        self.task_classes[classes] = True

    def rows(self, task: Task) -> npt.NDArray[np.int64]:
        """Return the rows that a task is learned from."""
        return task.rows

    def schedule(self, task: Task) -> ScheduleConfig:
        """Return the schedule of a task."""
        del task
        return self.config.schedule

    def prepare_step(self, batch: StepBatch) -> None:
        """Prepare a step: freeze parameters and mark its classes as seen."""
        if self.setting.stream.task_free:
            self.seen[self.labels_of(batch.rows)] = True

    def loss(self, batch: StepBatch) -> Tensor:
        """Return this rank's share (scalar) of the mean loss of a step; all ranks' add up to it."""
        return batch.weight * self.new_loss(self.logits(batch.inputs), batch.labels)

    def after_step(self, batch: StepBatch) -> None:  # noqa: B027
        """Run after the optimizer step."""

    def end_task(self, task: Task) -> None:  # noqa: B027
        """End a task, or the whole of a task-free stream."""

    def experts(self) -> tuple[str, ...]:
        """Return the names of the present experts."""
        return ("model",)

    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the logits (B, C) of each expert; arbitrary for classes not seen yet."""
        return {"model": self.logits(inputs)}

    def state(self) -> dict[str, Tensor]:
        """Return the state to resume from, apart from that of network and memory."""
        return {"seen": self.seen, "task_classes": self.task_classes}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state; raise KeyError if it is from another learner."""
        self.seen.copy_(state["seen"])
        self.task_classes.copy_(state["task_classes"])

    def stored(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors that the method keeps, by the ledger's names."""
        return {}

    def kept_rows(self) -> int:
        """Return how many training samples it keeps permanently, apart from a memory."""
        return 0

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the network's logits, float32 (B, C)."""
        with self.setting.autocast:
            logits: Tensor = self.network(inputs)
        return logits.float()

    def new_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of new samples among the configured classes."""
        among = self.task_classes if self.config.masks_to_task else self.seen
        return cross_entropy(logits, labels, among)

    def features_of(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return features of training samples without augmentation, float32 (n, D).

        Each rank computes those of some batches, and all ranks get the same values.
        """
        ranks, was_training = self.setting.ranks, self.network.training
        own = ranks.part.part_of_split(-(-len(rows) // EVAL_BATCH))
        rows = rows[own.start * EVAL_BATCH : own.stop * EVAL_BATCH]
        parts = [torch.empty(0, self.network.head.in_features, device=ranks.device)]
        self.network.eval()
        with torch.no_grad(), self.setting.autocast:
            parts += [
                self.network.features(inputs).float() for inputs in self.setting.inputs_of(rows)
            ]
        self.network.train(was_training)
        return ranks.join(torch.cat(parts))

    def labels_of(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return labels of training samples, int64 (n,)."""
        return torch.from_numpy(self.setting.labels[rows]).to(self.setting.device)


def part_of(ranks: Ranks, num_samples: int) -> tuple[slice, float]:
    """Return a rank's samples of a step, and the weight of their mean loss in that of all ranks.

    A rank without a sample takes the first one with weight 0, so that all ranks have gradients of
    the same parameters.
    """
    part = ranks.part.part_of_split(num_samples)
    if not part:
        return slice(0, 1), 0.0
    return slice(part.start, part.stop), len(part) / num_samples


def cross_entropy(logits: Tensor, labels: Tensor, among: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, C) among the classes of a bool mask (C,)."""
    return F.cross_entropy(logits.masked_fill(~among, SMALLEST), labels)
