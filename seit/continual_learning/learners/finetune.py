"""Learners without a memory: sequential fine-tuning and its bounds.

Seq-FT trains on each task in turn. A frozen head trains only the classifier. Joint training
retrains from scratch on all tasks so far: an upper bound without forgetting, at the price of
keeping everything.
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
    """`seq-ft`: fine-tunes on each task in turn."""

    masks = "task"


class FrozenHead(Finetuning):
    """`frozen-head`: trains only the classifier, on a frozen backbone."""

    tunes_backbone = False


class Joint(Learner):
    """`joint`: retrains from scratch at each task on all tasks so far.

    A number of steps per task adds up over those tasks; epochs are passes over all of them.
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
