"""What a learner answers on the evaluated samples of every task.

Legend: B batch, C classes of the store, T tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.train.continual.learner import SMALLEST, Learner
from seit.train.continual.streams import Stream

JOINT = "all"
"""The answer of all experts together; of a single one, its own."""


@dataclass(frozen=True)
class Answers:
    """What was right, by the name of who answered.

    Attributes:
        hits: of samples of each task, how many, among all classes that were seen, int64 (T,). Of a
            task that is still to come its classes, and those of tasks before it, are added.
        task_hits: the same among the classes of the sample's own task.
    """

    hits: Mapping[str, npt.NDArray[np.int64]]
    task_hits: Mapping[str, npt.NDArray[np.int64]]


EvaluationInputs = Callable[[npt.NDArray[np.int64]], Iterator[tuple[Tensor, Tensor]]]
"""Rows (n,) of the evaluated split → inputs (B, …) and labels (B,), batch by batch."""


def answer(learner: Learner, stream: Stream, inputs_of: EvaluationInputs, *, after: int) -> Answers:
    """Ask a learner for the classes of all evaluated samples.

    Args:
        learner: who answers.
        stream: of the run.
        inputs_of: reads samples.
        after: the number of the task that was learned last, −1 before the first.
    """
    network = learner.network
    was_training = network.training
    network.eval()
    hits: dict[str, npt.NDArray[np.int64]] = {}
    task_hits: dict[str, npt.NDArray[np.int64]] = {}
    with torch.inference_mode():
        for task in stream.tasks:
            own = _mask(task.classes, learner.seen)
            among = learner.seen.clone()
            if task.index > after and not stream.task_free:
                for earlier in stream.tasks[: task.index + 1]:
                    among |= _mask(earlier.classes, learner.seen)
            for inputs, labels in inputs_of(task.val_rows):
                probabilities = {
                    name: logits.masked_fill(~among, SMALLEST).softmax(dim=1).nan_to_num()
                    for name, logits in learner.answers(inputs).items()
                }
                probabilities[JOINT] = torch.stack(list(probabilities.values())).amax(dim=0)
                for name, chances in probabilities.items():
                    of_all, of_task = chances.argmax(1), (chances + 1).mul(own).argmax(1)
                    empty = np.zeros(len(stream.tasks), dtype=np.int64)
                    right = (of_all == labels) & (chances.amax(1) > 0)
                    hits.setdefault(name, empty.copy())[task.index] += int(right.sum())
                    right = of_task == labels
                    task_hits.setdefault(name, empty)[task.index] += int(right.sum())
    network.train(was_training)
    return Answers(hits, task_hits)


def _mask(classes: tuple[int, ...], like: Tensor) -> Tensor:
    mask = torch.zeros_like(like)
    mask[torch.tensor(classes, dtype=torch.int64, device=like.device)] = True
    return mask
