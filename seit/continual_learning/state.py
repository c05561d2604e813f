"""State that a continual run needs to resume bit for bit, as tensors.

A frozen backbone is not included: the run loads it again and checks its fingerprint.

Legend: T tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from seit.continual_learning.answers import Answers
from seit.continual_learning.learners.base import Learner
from seit.errors import DamagedError
from seit.training import Saved, moments, restore_moments


@dataclass
class Position:
    """Progress of a run, and its predictions so far.

    Attributes:
        segment: index of the current segment.
        step: steps done in it.
        number: steps done in total.
        initial: predictions before the first task.
        answers: predictions after each task.
        curve: (samples, accuracy) of each evaluation of a task-free stream.
        optimizer_bytes: size of the largest optimizer state so far.
    """

    segment: int = 0
    step: int = 0
    number: int = 0
    initial: Answers | None = None
    answers: list[Answers] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    optimizer_bytes: int = 0


@dataclass
class ContinualState:
    """The live objects of a run that a checkpoint saves and restores.

    Attributes:
        learner: learner of the run.
        progress: progress of the run.
        also: further objects with names of their own.
        optimizer: optimizer of the current task; None between tasks, as each starts a new one.
    """

    learner: Learner
    progress: Position
    also: Sequence[Saved] = ()
    optimizer: torch.optim.Optimizer | None = None
    _saved_moments: dict[str, Tensor] = field(default_factory=dict, init=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return all state as named tensors on the host."""
        learner, progress = self.learner, self.progress
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": learner.network.trained_state(),
            "learner": learner.state(),
            "optimizer": self.moments(),
        }
        if learner.setting.memory is not None:
            parts["memory"] = learner.setting.memory.state()
        if progress.initial is not None:
            told = [progress.initial, *progress.answers]
            for number, one in enumerate(told):
                for name, hits in (("hits", one.hits), ("task_hits", one.task_hits)):
                    parts[f"{name}.{number}"] = {
                        who: torch.from_numpy(values) for who, values in hits.items()
                    }
        tensors = {
            f"{part}.{key}": one for part, held in parts.items() for key, one in held.items()
        }
        tensors["progress"] = torch.tensor(
            [progress.segment, progress.step, progress.number, progress.optimizer_bytes]
        )
        for saved in self.also:
            tensors |= saved.tensors()
        tensors["curve"] = torch.tensor(progress.curve, dtype=torch.float64).view(-1, 2)
        return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore saved state, except moments, which wait for :meth:`restore_optimizer`.

        Raises:
            DamagedError: the state is from another run.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            parts.setdefault(part, {})[rest] = value
        try:
            self.learner.network.restore(parts["network"])
            self.learner.restore(parts["learner"])
            if self.learner.setting.memory is not None:
                self.learner.setting.memory.restore(parts["memory"])
            segment, step, number, size = tensors["progress"].tolist()
            curve = [(one[0], one[1]) for one in tensors["curve"].tolist()]
        except (KeyError, RuntimeError, ValueError) as error:
            raise DamagedError(f"the checkpoint does not fit this run: {error}") from error
        told = _answers(parts.get("hits", {}), parts.get("task_hits", {}))
        self.progress.segment, self.progress.step, self.progress.number = segment, step, number
        self.progress.initial = told[0] if told else None
        self.progress.answers[:] = told[1:]
        self.progress.optimizer_bytes = size
        self.progress.curve[:] = curve
        for saved in self.also:
            saved.restore(tensors)
        self._saved_moments = parts.get("optimizer", {})

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore the moments of the interrupted task's optimizer.

        Raises:
            DamagedError: the moments are from another run.
        """
        self.optimizer = optimizer
        network = self.learner.network
        try:
            # A module frozen so far has no moments yet.
            restore_moments(network, optimizer, self._saved_moments, all_or_none=False)
        except (KeyError, RuntimeError, ValueError) as error:
            raise DamagedError(f"the checkpoint does not fit this run: {error}") from error

    def moments(self) -> dict[str, Tensor]:
        """Return the optimizer state by parameter name; empty between tasks."""
        return {} if self.optimizer is None else moments(self.learner.network, self.optimizer)


def _answers(hits: Mapping[str, Tensor], task_hits: Mapping[str, Tensor]) -> list[Answers]:
    """Collect answers by number from tensors named ``number.expert``."""
    found: dict[int, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
    for place, tensors in enumerate((hits, task_hits)):
        for path, value in tensors.items():
            number, _, who = path.partition(".")
            found.setdefault(int(number), ({}, {}))[place][who] = value.numpy()
    return [Answers(*found[number]) for number in sorted(found)]
