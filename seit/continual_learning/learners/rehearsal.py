"""Rehearsal learners: each step trains on samples from memory next to the new ones.

Legend: B new samples of a step, b those from memory, C classes of the store, n samples.
"""

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from seit.continual_learning.learners.base import (
    Learner,
    Masks,
    Setting,
    StepBatch,
    cross_entropy,
    part_of,
)
from seit.continual_learning.memory.replay import Memory
from seit.continual_learning.streams.tasks import Task
from seit.errors import UsageError
from seit.training import SECOND_VIEW

DRAWS_OF_A_STEP = 2


class Replayed(NamedTuple):
    """Augmented samples from memory for a step.

    Attributes:
        inputs: (b, C, h, w), of this rank.
        labels: int64 (b,).
        weight: weight of their mean loss in that of all ranks.
        indices: int64 (b,), in the memory.
        num_all: samples of all ranks.
    """

    inputs: Tensor
    labels: Tensor
    weight: float
    indices: npt.NDArray[np.int64]
    num_all: int


class Rehearsal(Learner):
    """Experience replay, `er`: cross-entropy of new and replayed samples together.

    Samples enter the memory at the end of their task; in a task-free stream, after their step. The
    cross-entropy of both covers all classes seen so far.
    """

    uses_memory = True
    masks: ClassVar[Masks] = "seen"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert setting.memory is not None, "of a method that keeps samples"
        self.memory: Memory = setting.memory

    @override
    def loss(self, batch: StepBatch) -> Tensor:
        kept = self.replay(batch)
        if kept is None:
            return super().loss(batch)
        logits = self.logits(torch.cat([batch.inputs, kept.inputs]))
        num_new = len(batch.labels)
        new = batch.weight * self.new_loss(logits[:num_new], batch.labels)
        old = kept.weight * cross_entropy(logits[num_new:], kept.labels, self.seen)
        return self.mixed(batch, new, kept, old)

    def mixed(self, batch: StepBatch, new: Tensor, kept: Replayed, old: Tensor) -> Tensor:
        """Return the mean of the losses of new and replayed samples, each weighed equally."""
        share = len(batch.rows) / (len(batch.rows) + kept.num_all)
        return share * new + (1 - share) * old

    @override
    def after_step(self, batch: StepBatch) -> None:
        if self.setting.stream.task_free:
            self.keep(batch.rows)

    @override
    def end_task(self, task: Task) -> None:
        if not self.setting.stream.task_free:
            self.keep(task.rows)

    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        """Offer samples to the memory."""
        self.memory.add(rows, self.setting.labels[rows])

    def replay(self, batch: StepBatch, draw: int = 0) -> Replayed | None:
        """Draw samples for a step, different ones for each ``draw``; return None without any."""
        if not len(self.memory.labels):
            return None
        size = self.config.memory.batch_size or len(batch.rows)
        seed, number = self.config.run.seed, batch.number * DRAWS_OF_A_STEP + draw
        part, weight = part_of(self.setting.ranks, size)
        indices = self.memory.draw(size, seed=seed, step=number)[part]
        device = self.setting.device
        augmented = self.setting.augment(
            torch.from_numpy(self.memory.tokens[indices]).to(device),
            torch.from_numpy(self.memory.labels[indices]).to(device),
            positions=torch.arange(part.start, part.stop, device=device),
            seed=seed + SECOND_VIEW,
            epoch=number,
        )
        return Replayed(augmented.inputs, augmented.labels, weight, indices, size)


class DarkRehearsal(Rehearsal):
    """Dark experience replay, `der++` (Buzzega et al., NeurIPS 2020, arXiv 2004.07211).

    Adds to the cross-entropy of new samples: α times the mean squared distance to the logits stored
    with samples, and β times the cross-entropy of other replayed samples. Logits are stored in half
    precision for all classes of the store and count in the memory's bytes. They are computed
    without augmentation when samples are offered, at the end of a task; the paper stores those of
    the step, with augmentation.
    """

    keeps_logits = True

    @override
    def loss(self, batch: StepBatch) -> Tensor:
        dark, plain = self.replay(batch), self.replay(batch, 1)
        new = batch.weight * self.new_loss(self.logits(batch.inputs), batch.labels)
        if dark is None or plain is None:
            return new
        kept = self.memory.extras
        assert kept is not None
        targets = kept[torch.from_numpy(dark.indices)].to(self.setting.device, torch.float32)
        distance = dark.weight * F.mse_loss(self.logits(dark.inputs), targets)
        rehearsed = cross_entropy(self.logits(plain.inputs), plain.labels, self.seen)
        weights = self.config.rehearsal
        return new + weights.alpha * distance + weights.beta * plain.weight * rehearsed

    @override
    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        with torch.no_grad():
            logits = self.network.head(self.features_of(rows)).half()
        self.setting.ranks.adopt([logits])
        self.memory.add(rows, self.setting.labels[rows], extras=logits.cpu())


class GreedyDumb(Rehearsal):
    """GDumb (Prabhu et al., ECCV 2020): keep greedily, then learn from the memory alone.

    The memory is kept balanced over classes. For each evaluation the network is trained from
    scratch, for the steps of a task, on the memory; new samples are used for nothing else.

    Raises:
        UsageError: the memory has no room for any sample, when a task begins.
    """

    policy = "greedy"
    masks = None
    needs_tasks = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._initial = self.network.snapshot()

    @override
    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        self.keep(task.rows)
        if not len(self.memory):
            raise UsageError(
                f"no exemplar ({self.memory.medium.name}) fits memory.bytes "
                f"{self.memory.budget_bytes:,}, and {self.config.method} learns from exemplars "
                "alone; raise it, or choose a memory.medium of smaller ones, such as tokens"
            )
        self.network.restore(self._initial)

    @override
    def loss(self, batch: StepBatch) -> Tensor:
        kept = self.replay(batch)
        assert kept is not None, "a task's samples came before its steps"
        return kept.weight * cross_entropy(self.logits(kept.inputs), kept.labels, self.seen)

    @override
    def end_task(self, task: Task) -> None:
        """Do nothing: samples were kept at the beginning of the task."""

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        return {"initial_network": self._initial}
