"""Learning, accumulation, ensemble (Gao et al., ICCV 2023, arXiv 2303.10070).

An online module learns one task after the other. From the second task on, an offline module follows
it: it starts as a copy of the online module after the first task and becomes its running average in
every step, including those in which the online module is frozen. The cross-entropy covers the
classes of the task alone. Both modules predict, and the more confident one counts for each class.

Follows the official code, except that the decay can be set by the share absorbed per task
(`lae.ema_absorb`), and that an interrupted run keeps its offline module.

In a task-free stream the offline module starts with the first step and nothing is frozen: only
accumulation and ensemble remain.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from seit.continual_learning.learners.base import Learner, Setting, StepBatch
from seit.continual_learning.streams.tasks import Task

OFFLINE = "offline_module"
"""Name in `stored` of the offline values."""
_OFFLINE = "offline."


class Lae(Learner):
    """`lae`: learning, accumulation, ensemble."""

    masks = "task"
    averages_weights = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.offline: dict[str, Tensor] = {}
        """Averaged values of tuned tensors, by name in the network; empty in the first task."""
        state = self.network.trained_state()
        self._online = {key: one for key, one in state.items() if key.startswith("backbone.")}
        """Tuned values and statistics of the backbone, as trained; without the head."""

    @override
    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        if task.index == 1:
            self._start_offline()

    @override
    def prepare_step(self, batch: StepBatch) -> None:
        super().prepare_step(batch)
        if self.setting.stream.task_free and not self.offline:
            self._start_offline()
        frozen = (
            bool(self.offline)
            and not self.setting.stream.task_free
            and batch.step < round(self.config.lae.freeze * batch.total)
        )
        for parameter in self.network.tuned.values():
            parameter.requires_grad_(not frozen)

    @override
    @torch.no_grad()
    def after_step(self, batch: StepBatch) -> None:
        if not self.offline:
            return
        averaged = [key for key, value in self._online.items() if value.is_floating_point()]
        if averaged:
            torch._foreach_lerp_(
                [self.offline[key] for key in averaged],
                [self._online[key] for key in averaged],
                1 - self.decay(batch.total),
            )
        for key in self._online.keys() - averaged:
            self.offline[key].copy_(self._online[key])

    def decay(self, num_steps: int) -> float:
        """Return the decay of a step in a task of ``num_steps``."""
        absorbed = self.config.lae.ema_absorb
        if absorbed is None:
            return self.config.lae.ema_decay
        return float((1 - absorbed) ** (1 / num_steps))

    @override
    def end_task(self, task: Task) -> None:
        for parameter in self.network.tuned.values():
            parameter.requires_grad_()

    @override
    def experts(self) -> tuple[str, ...]:
        wanted = self.config.lae.experts
        if not self.offline or wanted == "online":
            return ("online",)
        return ("offline",) if wanted == "offline" else ("online", "offline")

    @override
    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        answers = {}
        for name in self.experts():
            with self.network.wearing(self.offline if name == "offline" else {}):
                answers[name] = self.logits(inputs)
        return answers

    @override
    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"{_OFFLINE}{key}": one for key, one in self.offline.items()}

    @override
    def restore(self, state: Mapping[str, Tensor]) -> None:
        super().restore(state)
        device = self.setting.device
        self.offline = {
            key.removeprefix(_OFFLINE): value.to(device)
            for key, value in state.items()
            if key.startswith(_OFFLINE)
        }

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        return {OFFLINE: self.offline}

    def _start_offline(self) -> None:
        self.offline = {key: value.detach().clone() for key, value in self._online.items()}
