"""Learning, accumulation, ensemble (Gao et al., ICCV 2023, arXiv 2303.10070).

An online module learns one task after the other. From the second task on an offline
module follows it: a copy of it as the first task left it, then its running average, step by step,
while the online module is frozen too. The cross-entropy chooses among the classes of the task
alone. Both modules answer, and for each class the surer counts.

As the official code does it, with one difference: the decay may be chosen by what a task brings in
(`lae.ema_absorb`), and an interrupted run keeps its offline module.

In a stream that tells no tasks the offline module begins with the first step and nothing is frozen:
accumulation and ensemble alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from seit.continual_learning.learners.base import Learner, Setting, StepBatch
from seit.continual_learning.streams.tasks import Task

OFFLINE = "offline_module"
"""Name in `stored` of the values that the method keeps besides."""
_OFFLINE = "offline."


class Lae(Learner):
    """`lae`."""

    masks = "task"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.offline: dict[str, Tensor] = {}
        """The averaged values of what is tuned, by their names in the network; none in the first
        task."""
        state = self.network.trained_state()
        self._online = {key: one for key, one in state.items() if key.startswith("backbone.")}
        """Tuned values of the backbone and its statistics, as training changes them; no head."""

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
        """The decay of a step, in a task of so many."""
        absorbed = self.config.lae.ema_absorb
        if absorbed is None:
            return self.config.lae.ema_decay
        return float((1 - absorbed) ** (1 / num_steps))

    @override
    def end_task(self, task: Task) -> None:
        for parameter in self.network.tuned.values():
            parameter.requires_grad_()

    @override
    def answers(self, inputs: Tensor) -> dict[str, Tensor]:
        wanted = self.config.lae.experts
        answers = {}
        if wanted != "offline" or not self.offline:
            answers["online"] = self.logits(inputs)
        if self.offline and wanted != "online":
            with self.network.wearing(self.offline):
                answers["offline"] = self.logits(inputs)
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
