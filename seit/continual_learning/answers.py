"""What a learner answers on the evaluated samples of every task.

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
"""The answer of all experts together; of a single one, its own."""


@dataclass(frozen=True)
class Answers:
    """What was right, by the name of who answered.

    Attributes:
        hits: of samples of each task, how many, among all classes that were seen, int64 (T,). Of a
            task that is still to come its classes, and those of tasks before it, are added, unless
            nobody tells tasks apart.
        task_hits: the same among the classes of the sample's own task.
    """

    hits: Mapping[str, npt.NDArray[np.int64]]
    task_hits: Mapping[str, npt.NDArray[np.int64]]


EvaluationInputs = Callable[[npt.NDArray[np.int64]], Iterator[tuple[Tensor, Tensor]]]
"""Rows (n,) of the evaluated split → inputs (B, …) and labels (B,), batch by batch."""


def answer(
    learner: Learner, stream: Stream, inputs_of: EvaluationInputs, *, after: int
) -> tuple[Answers, float]:
    """Ask a learner for the classes of all evaluated samples.

    Args:
        learner: who answers.
        stream: of the run.
        inputs_of: reads samples.
        after: the number of the task that was learned last, −1 before the first.

    Returns:
        The answers by tasks; and the accuracy of all together, 0–1, on samples of classes that were
        met, whatever their task; NaN before there are any.
    """
    network = learner.network
    was_training = network.training
    network.eval()
    # Counted where the answers are, and waited for once.
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
                # Logarithms, as a chance of e⁻¹²⁰ is none in float32, though another is smaller.
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
    """Log-softmax (B, C) among classes of a mask (C,); −∞ of all where none can be chosen."""
    chances = logits.masked_fill(~among, SMALLEST).log_softmax(dim=1)
    return chances.masked_fill(chances.isnan(), SMALLEST)


def _is_right(chances: Tensor, labels: Tensor) -> Tensor:
    """Whether the likeliest class is the label's, bool (B,); never where none can be chosen."""
    best = chances.max(dim=1)
    return (best.indices == labels) & (best.values > SMALLEST)


def _mask(classes: tuple[int, ...], like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    mask[torch.tensor(classes, dtype=torch.int64, device=like.device)] = True
    return mask
