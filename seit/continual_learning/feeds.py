"""Samples of a continual run by row: splits in memory, segments of a stream, batches.

Legend: B batch, n samples of a segment, H W token grid.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.augment import TokenAugment
from seit.continual_learning.streams.tasks import Stream, Task
from seit.shards import Split
from seit.stream import GlobalOrder, ResidentLoader, loader
from seit.training import EVAL_BATCH, ScheduleConfig, num_steps


class Rows:
    """A split in memory, read by row.

    Args:
        split: split of a store.
        augment: tokens → inputs.
        device: device of the inputs.

    Attributes:
        labels: int64 (N,), −1 for an unlabeled sample.

    Raises:
        UsageError: the split is empty.
    """

    def __init__(self, split: Split, augment: TokenAugment, device: torch.device) -> None:
        found = loader(split, batch_size=EVAL_BATCH, device=device, shuffle=False, mode="resident")
        assert isinstance(found, ResidentLoader)
        self._loader = found
        self._augment = augment
        self._split = split
        self.labels = split.labels.astype(np.int64)

    def read_keys(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Read the keys of ``rows`` (b,)."""
        return self._split.read_keys(rows)

    def tokens(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return ids (n, H, W) on the device."""
        return self._loader.read(rows)

    def inputs(self, rows: npt.NDArray[np.int64]) -> Iterator[Tensor]:
        """Yield inputs (B, C, h, w) without augmentation, batch by batch."""
        for start in range(0, len(rows), EVAL_BATCH):
            yield self._augment.evaluate(self.tokens(rows[start : start + EVAL_BATCH]))

    def labelled_inputs(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs without augmentation and their labels (B,), batch by batch."""
        labels = torch.from_numpy(self.labels[rows]).to(self._loader.device)
        yield from zip(self.inputs(rows), labels.split(EVAL_BATCH), strict=True)


@dataclass(frozen=True)
class Segment:
    """Part of a stream between two evaluations: whole steps.

    Attributes:
        task: the task it belongs to, with the rows of the segment.
        start: number of rows of the task before it.
        samples: total of new samples up to its end.
        ends_task: whether it is the last segment of the task.
        num_due: multiples of ``eval_every`` samples within it, which its evaluation stands for.
    """

    task: Task
    start: int
    samples: int
    ends_task: bool
    num_due: int


def segments(stream: Stream, *, eval_every: int, batch_size: int) -> list[Segment]:
    """Return the tasks of a stream, or the parts between evaluations of a task-free one.

    A part ends with the first step that reaches a multiple of ``eval_every``, so steps do not
    depend on evaluations.

    Args:
        stream: stream of the run.
        eval_every: samples between two evaluations of a task-free stream, at most all of them; 0
            for ten evaluations.
        batch_size: new samples per step; the last step of a task takes what is left.
    """
    total = sum(len(task.rows) for task in stream.tasks)
    every = min(eval_every or -(-total // 10), total)
    found: list[Segment] = []
    seen = 0
    for task in stream.tasks:
        n = len(task.rows)
        cuts = {0, n}
        if stream.task_free:
            due = range(every - seen % every, n, every)
            cuts |= {min(-(-multiple // batch_size) * batch_size, n) for multiple in due}
        for start, end in pairwise(sorted(cuts)):
            found.append(
                Segment(
                    replace(task, rows=task.rows[start:end]),
                    start,
                    seen + end,
                    ends_task=end == n,
                    num_due=(seen + end) // every - (seen + start) // every,
                )
            )
        seen += n
    return found


@dataclass(frozen=True)
class Course:
    """Assignment of new rows to the steps of a segment.

    Attributes:
        rows: int64 (n,).
        batch_size: samples per step; an incomplete last batch is dropped if rows are shuffled.
        shuffle: whether each epoch is a permutation; otherwise a single pass in order.
        seed: seed of the order and of the augmentation.
        schedule: schedule of a task; None for a learner that takes no steps.
        start: position of the first row in the task; 0 if rows are shuffled.
    """

    rows: npt.NDArray[np.int64]
    batch_size: int
    shuffle: bool
    seed: int
    schedule: ScheduleConfig | None
    start: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps per pass over the rows."""
        if not self.shuffle:
            return -(-len(self.rows) // self.batch_size)
        return max(1, len(self.rows) // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Number of steps of the segment."""
        if self.schedule is None:
            return 0
        if not self.shuffle:
            return self.steps_per_epoch
        return num_steps(self.schedule, self.steps_per_epoch)

    def at(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Return the rows (B,) of a step, their positions (B,) in the task's epoch, and it."""
        epoch, number = divmod(step, self.steps_per_epoch)
        positions = np.arange(
            number * self.batch_size, min((number + 1) * self.batch_size, len(self.rows))
        )
        if not self.shuffle:
            return self.rows[positions], self.start + positions, 0
        order = GlobalOrder(len(self.rows), seed=self.seed)
        return self.rows[order.indices(positions, epoch)], positions, epoch


def task_seed(seed: int, number: int) -> int:
    """Return the seed of a task, below 2⁶³."""
    digest = hashlib.blake2b(f"continual/{seed}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
