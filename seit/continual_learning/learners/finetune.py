"""Learners without a memory: fine-tuning task by task, and its bounds.

Seq-FT trains on each task as it comes; a frozen head only the classifier, on a backbone that
stays; joint training starts from scratch at each task, on all that came so far: what forgetting
nothing would reach, at the price of keeping everything.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor
from typing_extensions import override

from seit.continual_learning.learners.base import Learner, Setting
from seit.continual_learning.streams.tasks import Task
from seit.training import ScheduleConfig


class Finetuning(Learner):
    """`seq-ft`: each task as it comes."""

    masks = "task"


class FrozenHead(Finetuning):
    """`frozen-head`: the classifier alone, on a backbone that stays as it is."""

    tunes_backbone = False
    needs_tasks = True


class Joint(Learner):
    """`joint`: from scratch at each task, on all tasks so far, for as many epochs of them.

    Where a task has a number of steps, it takes that of all tasks so far together.
    """

    masks = "seen"
    needs_tasks = True
    mixes_tasks = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._initial = self.network.snapshot()

    @override
    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        self.network.restore(self._initial)

    @override
    def rows(self, task: Task) -> npt.NDArray[np.int64]:
        tasks = self.setting.stream.tasks[: task.index + 1]
        return np.sort(np.concatenate([one.rows for one in tasks]))

    @override
    def schedule(self, task: Task) -> ScheduleConfig:
        steps = self.config.schedule.steps
        return replace(self.config.schedule, steps=steps and steps * (task.index + 1))

    @override
    def stored(self) -> dict[str, dict[str, Tensor]]:
        return {"initial_network": self._initial}

    @override
    def kept_rows(self) -> int:
        return sum(len(task.rows) for task in self.setting.stream.tasks)
