"""Predictions of a learner on the evaluated samples of every task.

Legend: B batch, C classes of the store, T tasks.
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
    learner: Learner, stream: Stream, inputs_of: EvaluationInputs, *, after: int
) -> tuple[Answers, float]:
    """Evaluate a learner on all evaluated samples.

    Args:
        learner: learner to evaluate.
        stream: stream of the run.
        inputs_of: reader of samples.
        after: index of the last task learned, −1 before the first.

    Returns:
        The correct predictions by task; and the combined accuracy, 0–1, on all samples of classes
        seen so far, NaN if there are none.
    """
    network = learner.network
    was_training = network.training
    network.eval()
    # Count on the device and synchronize once at the end.
    hits: dict[str, Tensor] = {}
    task_hits: dict[str, Tensor] = {}
    met_2 = torch.zeros(2, dtype=torch.int64, device=learner.seen.device)
    with torch.inference_mode():
        for task in stream.tasks:
            own = _mask(task.val_classes, learner.seen)
            among = learner.seen.clone()
            if task.index > after and not stream.task_free:
                for earlier in stream.tasks[: task.index + 1]:
                    among |= _mask(earlier.classes, learner.seen)
            for inputs, labels in inputs_of(task.val_rows):
                # Log probabilities: e⁻¹²⁰ underflows in float32 and could no longer be compared.
                chances = {
                    name: _log_chances(logits, among)
                    for name, logits in learner.answers(inputs).items()
                }
                chances[JOINT] = torch.stack(list(chances.values())).amax(dim=0)
                for name, of_all in chances.items():
                    for found, among_those in (
                        (hits, of_all),
                        (task_hits, of_all.masked_fill(~own, SMALLEST)),
                    ):
                        if name not in found:
                            found[name] = met_2.new_zeros(len(stream.tasks))
                        found[name][task.index] += _is_right(among_those, labels).sum()
                met = learner.seen[labels]
                right = _is_right(chances[JOINT], labels) & met
                met_2 += torch.stack([right.sum(), met.sum()])
    network.train(was_training)
    met_hits, num_met = met_2.tolist()
    told = [{name: one.cpu().numpy() for name, one in found.items()} for found in (hits, task_hits)]
    return Answers(*told), met_hits / num_met if num_met else math.nan


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
