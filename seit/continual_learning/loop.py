"""Loop over the segments of a stream and the steps of each.

Legend: B batch.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.continual_learning.answers import JOINT, Answers, answer
from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.feeds import Course, Rows, Segment, segments, task_seed
from seit.continual_learning.learners.base import Learner, Setting, StepBatch, part_of
from seit.continual_learning.ledger import tensor_bytes
from seit.continual_learning.state import ContinualState, Position
from seit.progress import Progress, human_rate, human_seconds
from seit.tensors import first_not_finite
from seit.training import (
    Loop,
    Run,
    Stop,
    Update,
    learning_rate,
    make_optimizer,
    make_scaler,
    seed_torch,
    set_learning_rate,
)

_LOG = logging.getLogger(__name__)


class Running(Loop[StepBatch]):
    """One call of a continual run, from its latest checkpoint, if any, to its end.

    Args:
        learner: learner to train.
        train: training split in memory.
        evaluated: evaluated split in memory.
        run: run folder.
        notify: callback after each step.
    """

    def __init__(
        self, learner: Learner, train: Rows, evaluated: Rows, run: Run, notify: Progress | None
    ) -> None:
        self.learner = learner
        self.setting: Setting = learner.setting
        self.config = self.setting.config
        super().__init__(run, self.config, self.config.run, self.setting.ranks, notify)
        self.train = train
        self.evaluated = evaluated
        self.position = Position()
        self.update = Update(
            make_scaler(self.config, self.setting.device), clip_grad=self.config.optim.clip_grad
        )
        self.state: ContinualState = ContinualState(
            learner, self.position, also=(self.update, self.journal)
        )
        stream = self.setting.stream
        self.segments = segments(
            stream,
            eval_every=self.config.stream.eval_every,
            batch_size=self.config.data.batch_size,
        )
        self.courses = [self._course(segment) for segment in self.segments]
        self.total = sum(course.num_steps for course in self.courses)
        self._resumed = False

    @override
    def begin(self, *, resumed: bool) -> None:
        self._resumed = resumed
        self.done = self.position.number
        if not self.ranks.is_main:
            return
        stream, config = self.setting.stream, self.config
        _LOG.info(
            "%s learns %d tasks of %d classes with %s on %s: %s steps",
            config.method,
            len(stream.tasks),
            stream.num_classes,
            config.model.name,
            self.setting.device,
            f"{self.total:,}",
        )

    @override
    def learn(self, stop: Stop) -> bool:
        position = self.position
        if position.initial is None:
            position.initial, _ = self._answer(after=-1)
        while position.segment < len(self.segments):
            if not self._learn_segment(stop):
                return False
            self._resumed = False
        return True

    @property
    @override
    def mark(self) -> int:
        """Number of the checkpoint or log line; increases with steps and segments."""
        return self.position.number + self.position.segment

    @property
    def _segment(self) -> Segment:
        return self.segments[self.position.segment]

    @property
    def _present(self) -> Course:
        """Return the course of the current segment."""
        return self.courses[self.position.segment]

    @property
    def _first(self) -> int:
        """Number of the first step of the current segment."""
        return self.position.number - self.position.step

    def _course(self, segment: Segment) -> Course:
        task_free = self.setting.stream.task_free
        rows = self.learner.rows(segment.task)
        return Course(
            rows=rows,
            batch_size=min(self.config.data.batch_size, len(rows)),
            shuffle=not task_free,
            seed=task_seed(self.config.run.seed, segment.task.index),
            schedule=self.learner.schedule(segment.task) if self.learner.takes_steps else None,
            start=segment.start,
        )

    def _learn_segment(self, stop: Stop) -> bool:
        """Learn the current segment; return whether the run continues after it."""
        position, learner, segment = self.position, self.learner, self._segment
        task_free = self.setting.stream.task_free
        if not task_free and not position.step:
            learner.begin_task(segment.task)
        if learner.takes_steps:
            self._get_optimizer()
            learner.network.train()
            if not self.take_steps(self._first + self._present.num_steps, stop):
                return False
        if not task_free or not learner.takes_steps:
            learner.end_task(segment.task)
            self.ranks.adopt(learner.state().values())
        size = tensor_bytes(self.state.moments())
        position.optimizer_bytes = max(position.optimizer_bytes, size)
        if not task_free:
            self.state.optimizer = None
        self.check_weights()
        # The log line is newer than any earlier checkpoint, so it is written once.
        position.segment, position.step = position.segment + 1, 0
        self._evaluate_segment(segment)
        self.save()
        stops = self.ranks.any(stop.requested)
        return not stops or position.segment == len(self.segments)

    def _get_optimizer(self) -> None:
        """Create a new optimizer for each task, or a single one for a task-free stream."""
        position = self.position
        if self.state.optimizer is not None:
            return
        for parameter in self.learner.network.tuned.values():
            parameter.requires_grad_()
        optimizer = make_optimizer(self.learner.network, self.config.optim, self.setting.device)
        continues = position.step > 0 or (self.setting.stream.task_free and position.number > 0)
        if self._resumed and continues:
            self.state.restore_optimizer(optimizer)
        else:
            self.state.optimizer = optimizer

    @override
    def due(self, until: int) -> tuple[bool, bool, bool]:
        every = self.cadence.checkpoint_every
        logs = self.done == until or self.done % self.cadence.log_every == 0
        return logs, False, bool(every) and self.done % every == 0

    @override
    def rate(self, step: int) -> float:
        task_free, course = self.setting.stream.task_free, self._present
        steps = self.total if task_free else course.num_steps
        paced: ContinualConfig = replace(
            self.config, schedule=replace(self.config.schedule, steps=steps)
        )
        epoch = self.total if task_free else course.steps_per_epoch
        return learning_rate(step if task_free else step - self._first, paced, epoch)

    @override
    def batches(self, step: int) -> Generator[StepBatch]:
        course, first = self._present, self._first
        return (self._batch(course, at) for at in range(step - first, course.num_steps))

    @override
    def samples(self, batch: StepBatch) -> int:
        return len(batch.rows)

    @override
    def take(self, step: int, batch: StepBatch) -> Tensor:
        position, network = self.position, self.learner.network
        optimizer = self.state.optimizer
        assert optimizer is not None
        seed_torch(self.config.run.seed, step, self.ranks.rank)
        set_learning_rate(optimizer, self.rate(step))
        self.learner.prepare_step(batch)
        loss = self.learner.loss(batch)
        penalty = network.tuning.penalty()
        whole = self.ranks.world_size  # a penalty is the same on all ranks
        self.update.backward(loss if penalty is None else loss + penalty / whole)
        self.ranks.sum_gradients(network.parameters())
        trains = any(one.requires_grad for one in network.tuned.values())
        self.update.take(
            network,
            optimizer,
            follow=(lambda: network.tuning.after_update(batch.step, batch.total))
            if trains
            else None,
        )
        self.learner.after_step(batch)
        position.step += 1
        position.number += 1
        return loss.detach()[None] * whole

    def _batch(self, course: Course, step: int, *, is_whole: bool = False) -> StepBatch:
        """Return the new samples of a step of the current segment: the rank's, or all of them."""
        device, number = self.setting.device, self._first + step
        rows, positions, epoch = course.at(step)
        part, weight = (slice(None), 1.0) if is_whole else part_of(self.ranks, len(rows))
        labels = torch.from_numpy(self.train.labels[rows[part]]).to(device)
        augmented = self.setting.augment(
            self.train.tokens(rows[part]),
            labels,
            positions=torch.from_numpy(positions[part]).to(device),
            seed=course.seed,
            epoch=epoch,
        )
        task_free = self.setting.stream.task_free
        return StepBatch(
            inputs=augmented.inputs,
            labels=labels,
            weight=weight,
            rows=rows,
            step=number if task_free else step,
            total=self.total if task_free else course.num_steps,
            number=number,
        )

    @override
    def inputs(self, step: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        if not self.learner.takes_steps:
            return {}, ()
        course = self._present
        number = min(max(0, step - self._first), course.num_steps - 1)
        batch = self._batch(course, number, is_whole=True)
        rows = torch.from_numpy(batch.rows)
        tensors = {"inputs": batch.inputs, "labels": batch.labels, "rows": rows}
        return tensors, self.train.read_keys(batch.rows)

    @override
    def networks(self) -> Sequence[nn.Module | None]:
        return (self.learner.network,)

    @override
    def check_weights(self) -> None:
        super().check_weights()
        if not self.learner.takes_steps:
            name = first_not_finite(self.learner.state())
            kept = f"what {self.config.method} keeps ({name}) is not finite"
            self.refuse(None if name is None else kept)

    def _answer(self, *, after: int) -> tuple[Answers, float]:
        inputs_of = self.evaluated.labelled_inputs
        return answer(self.learner, self.setting.stream, inputs_of, self.ranks, after=after)

    def _evaluate_segment(self, segment: Segment) -> None:
        """Evaluate all experts after a segment."""
        answers, of_met = self._answer(after=segment.task.index)
        stream = self.setting.stream
        counts = [len(task.val_rows) for task in stream.tasks]
        seen = range(segment.task.index + 1)
        accuracy = sum(answers.hits[JOINT][i] for i in seen) / sum(counts[i] for i in seen)
        if stream.task_free:
            accuracy = of_met
            self.position.curve.append((float(segment.samples), accuracy))
        if segment.ends_task:
            self.position.answers.append(answers)
        figures = {"task": float(segment.task.index), "accuracy": float(accuracy)}
        self.journal.latest["val_accuracy"] = figures["accuracy"]
        self.journal.record(self.mark, "val", figures)
        self._say_segment(segment, figures["accuracy"])

    def _say_segment(self, segment: Segment, accuracy: float) -> None:
        """Log the results after a segment and the estimated time left."""
        if not self.ranks.is_main:
            return
        journal, shown = self.journal, [f"pooled accuracy {accuracy:.2%}"]
        if "loss" in journal.latest:
            shown.insert(0, f"loss {journal.latest['loss']:.4g}")
        if journal.steps:
            shown.append(human_rate(journal.samples_per_second, "samples"))
        if journal.steps and self.done < self.total:
            left = (self.total - self.done) * journal.seconds_per_step
            shown.append(f"{human_seconds(left)} left")
        _LOG.info(
            "task %d of %d, step %s of %s: %s",
            segment.task.index + 1,
            len(self.setting.stream.tasks),
            f"{self.done:,}",
            f"{self.total:,}",
            ", ".join(shown),
        )
