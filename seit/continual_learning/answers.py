"""Predictions of a learner on the evaluated samples of every task.

Legend: B batch, C classes of the store, E experts, T tasks.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.continual_learning.learners.base import SMALLEST, Learner
from seit.continual_learning.streams.tasks import Stream
from seit.training import EVAL_BATCH, Ranks

JOINT = "all"
"""Name of the combined prediction of all experts, or of the only one."""


@dataclass(frozen=True)
class Answers:
    """Counts of correct predictions, by expert.

    Attributes:
        hits: int64 (T,), correct predictions per task, among all classes seen so far. For a future
            task, its classes and those of the tasks before it count as seen, unless the stream is
            task-free.
        task_hits: the same, among the classes of the sample's own task.
    """

    hits: Mapping[str, npt.NDArray[np.int64]]
    task_hits: Mapping[str, npt.NDArray[np.int64]]


EvaluationInputs = Callable[[npt.NDArray[np.int64]], Iterator[tuple[Tensor, Tensor]]]
"""Rows (n,) of the evaluated split → inputs (B, …) and labels (B,), batch by batch."""


def answer(
    learner: Learner, stream: Stream, inputs_of: EvaluationInputs, ranks: Ranks, *, after: int
) -> tuple[Answers, float]:
    """Evaluate a learner on all evaluated samples, each on one rank.

    Args:
        learner: learner to evaluate.
        stream: stream of the run.
        inputs_of: reader of samples.
        ranks: ranks of the run.
        after: index of the last task learned, −1 before the first.

    Returns:
        The correct predictions by task; and the combined accuracy, 0–1, on all samples of classes
        seen so far, NaN if there are none.
    """
    network = learner.network
    was_training = network.training
    network.eval()
    # Count on the device and synchronize once at the end.
    names = [*learner.experts(), JOINT]
    counts = torch.zeros(2 * len(names) * len(stream.tasks) + 2, dtype=torch.int64)
    counts = counts.to(learner.seen.device)
    hits_2ET = counts[:-2].view(2, len(names), len(stream.tasks))
    met_2 = counts[-2:]
    with torch.inference_mode():
        for task, rows in zip(stream.tasks, _rows_of_rank(stream, ranks), strict=True):
            own = _mask(task.val_classes, learner.seen)
            among = learner.seen.clone()
            if task.index > after and not stream.task_free:
                for earlier in stream.tasks[: task.index + 1]:
                    among |= _mask(earlier.classes, learner.seen)
            for inputs, labels in inputs_of(rows) if len(rows) else ():
                # Log probabilities: e⁻¹²⁰ underflows in float32 and could no longer be compared.
                chances = {
                    name: _log_chances(logits, among)
                    for name, logits in learner.answers(inputs).items()
                }
                chances[JOINT] = torch.stack(list(chances.values())).amax(dim=0)
                for number, name in enumerate(names):
                    of_all = chances[name]
                    of_task = of_all.masked_fill(~own, SMALLEST)
                    hits_2ET[0, number, task.index] += _is_right(of_all, labels).sum()
                    hits_2ET[1, number, task.index] += _is_right(of_task, labels).sum()
                met = learner.seen[labels]
                right = _is_right(chances[JOINT], labels) & met
                met_2 += torch.stack([right.sum(), met.sum()])
    network.train(was_training)
    total = ranks.sum(counts).cpu()
    met_hits, num_met = total[-2:].tolist()
    hits = [
        {name: one.numpy() for name, one in zip(names, hits_ET, strict=True)}
        for hits_ET in total[:-2].view_as(hits_2ET)
    ]
    return Answers(*hits), met_hits / num_met if num_met else math.nan


def _rows_of_rank(stream: Stream, ranks: Ranks) -> Iterator[npt.NDArray[np.int64]]:
    """Yield, by task, the evaluated rows of a rank: whole batches, dealt out over all tasks."""
    dealt = 0
    for task in stream.tasks:
        starts = range(0, len(task.val_rows), EVAL_BATCH)
        own = starts[(ranks.rank - dealt) % ranks.world_size :: ranks.world_size]
        dealt += len(starts)
        batches = [task.val_rows[start : start + EVAL_BATCH] for start in own]
        yield np.concatenate(batches) if batches else task.val_rows[:0]


def _log_chances(logits: Tensor, among: Tensor) -> Tensor:
    """Return log-softmax (B, C) among the classes of a mask (C,); all −∞ if the mask is empty."""
    chances = logits.masked_fill(~among, SMALLEST).log_softmax(dim=1)
    return chances.masked_fill(chances.isnan(), SMALLEST)


def _is_right(chances: Tensor, labels: Tensor) -> Tensor:
    """Return which predictions match the labels, bool (B,); False if no class can be chosen."""
    best = chances.max(dim=1)
    return (best.indices == labels) & (best.values > SMALLEST)


def _mask(classes: tuple[int, ...], like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    mask[torch.tensor(classes, dtype=torch.int64, device=like.device)] = True
    return mask
