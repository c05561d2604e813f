"""The loop over the segments of a stream, and the steps of each.

Legend: B batch.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from seit.config import to_mapping
from seit.continual_learning.answers import JOINT, Answers, answer
from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.feeds import Course, Rows, Segment, segment_seed, segments
from seit.continual_learning.learners.base import Learner, Setting, StepBatch
from seit.continual_learning.ledger import tensor_bytes
from seit.continual_learning.state import ContinualState, Position
from seit.errors import SeitError
from seit.progress import Progress, human_rate, human_seconds
from seit.tensors import first_not_finite
from seit.training import (
    Failure,
    Logger,
    Run,
    Stop,
    describe_ruin,
    first_failure,
    learning_rate,
    list_checkpoints,
    load_checkpoint,
    make_loggers,
    make_optimizer,
    make_scaler,
    save_checkpoint,
    seed_torch,
    set_learning_rate,
    write_failure,
)

_LOG = logging.getLogger(__name__)


class Running:
    """One call of a continual run: from its latest checkpoint, if there is one, to its end.

    Args:
        learner: who learns.
        train: the training split in memory.
        evaluated: the evaluated split in memory.
        run: the folder.
        notify: called after each step.
    """

    def __init__(
        self, learner: Learner, train: Rows, evaluated: Rows, run: Run, notify: Progress | None
    ) -> None:
        self.learner = learner
        self.setting: Setting = learner.setting
        self.config = self.setting.config
        self.train = train
        self.evaluated = evaluated
        self.run = run
        self.notify = notify
        self.progress = Position()
        self.scaler = make_scaler(self.config, self.setting.device)
        self.state = ContinualState(learner, self.progress, self.scaler)
        stream = self.setting.stream
        self.segments = segments(stream, eval_every=self.config.stream.eval_every)
        self.courses = [self._course(number, one) for number, one in enumerate(self.segments)]
        self.total = sum(course.num_steps for course in self.courses)
        self.loggers: Sequence[Logger] = ()
        self.busy_seconds = 0.0
        self.steps_here = 0
        self.samples_here = 0
        self.latest: dict[str, float] = {}
        self.started = time.perf_counter()

    def finish(self, stop: Stop) -> bool:
        """Run all segments that are left; whether the end was reached before a wish to stop."""
        found = list_checkpoints(self.run.checkpoints)
        resumed = bool(found)
        if resumed:
            load_checkpoint(found[-1], self.state)
        self.run.rewind_metrics(self._mark)
        self.loggers = make_loggers(
            self.config.run.loggers, self.run.path, to_mapping(self.config), step=self._mark
        )
        self._say_start(resumed)
        try:
            if self.progress.initial is None:
                self.progress.initial, _ = self._answer(after=-1)
            while self.progress.segment < len(self.segments):
                if not self._learn(resumed, stop):
                    return False
                resumed = False
            return True
        finally:
            for logger in self.loggers:
                logger.finish(None)

    @property
    def _mark(self) -> int:
        """What metrics and checkpoints are numbered by; it grows with steps and segments."""
        return self.progress.number + self.progress.segment

    def _course(self, number: int, segment: Segment) -> Course:
        task_free = self.setting.stream.task_free
        rows = self.learner.rows(segment.task)
        return Course(
            rows=rows,
            batch_size=min(self.config.data.batch_size, len(rows)),
            shuffle=not task_free,
            seed=segment_seed(self.config.run.seed, number),
            schedule=self.learner.schedule(segment.task) if self.learner.takes_steps else None,
        )

    def _learn(self, resumed: bool, stop: Stop) -> bool:
        """Learn the present segment; whether it was finished."""
        progress, learner = self.progress, self.learner
        segment = self.segments[progress.segment]
        course = self.courses[progress.segment]
        task_free = self.setting.stream.task_free
        if not task_free and not progress.step:
            learner.begin_task(segment.task)
        if learner.takes_steps:
            self._get_optimizer(resumed=resumed)
            if not self._take_steps(course, stop):
                return False
        if not task_free or not learner.takes_steps:
            learner.end_task(segment.task)
        self._measure_optimizer()
        if not task_free:
            self.state.optimizer = None
        # A line of its metrics is beyond every checkpoint that comes before it: it is told once.
        self._check_weights()
        progress.segment, progress.step = progress.segment + 1, 0
        self._evaluate(segment)
        self._save()
        return not stop.requested or progress.segment == len(self.segments)

    def _get_optimizer(self, *, resumed: bool) -> None:
        """A new optimiser for each task, and one for all of a task-free stream."""
        progress = self.progress
        if self.state.optimizer is not None:
            return
        for parameter in self.learner.network.tuned.values():
            parameter.requires_grad_()
        optimizer = make_optimizer(self.learner.network, self.config.optim, self.setting.device)
        goes_on = progress.step > 0 or (self.setting.stream.task_free and progress.number > 0)
        if resumed and goes_on:
            self.state.restore_optimizer(optimizer)
        else:
            self.state.optimizer = optimizer

    def _measure_optimizer(self) -> None:
        size = tensor_bytes(self.state.moments())
        self.progress.optimizer_bytes = max(self.progress.optimizer_bytes, size)

    def _take_steps(self, course: Course, stop: Stop) -> bool:
        """The steps of a segment that are left; whether all were taken."""
        progress, every = self.progress, self.config.run.checkpoint_every
        paced = self._paced(course)
        self.learner.network.train()
        mark = time.perf_counter()
        while progress.step < course.num_steps:
            self._step(course, paced)
            ends = progress.step == course.num_steps
            logs = ends or progress.number % self.config.run.log_every == 0
            saves = bool(every) and progress.number % every == 0
            if logs or saves or stop.requested:
                self._check_losses(write=logs, seconds=time.perf_counter() - mark)
            if saves or stop.requested:
                self._check_weights()
                self._save()
            if self.notify:
                self.notify(progress.number, self.total, self.latest)
            if stop.requested:
                return False
        self.busy_seconds += time.perf_counter() - mark
        return True

    def _paced(self, course: Course) -> ContinualConfig:
        """The config with the schedule that learning rates follow: of a task, or of all steps."""
        task_free = self.setting.stream.task_free
        steps = self.total if task_free else course.num_steps
        return replace(self.config, schedule=replace(self.config.schedule, steps=steps))

    def _step(self, course: Course, paced: ContinualConfig) -> None:
        progress, network = self.progress, self.learner.network
        batch = self._batch(course, progress.step)
        optimizer = self.state.optimizer
        assert optimizer is not None
        seed_torch(self.config.run.seed, progress.number, 0)
        task_free = self.setting.stream.task_free
        epoch = self.total if task_free else course.steps_per_epoch
        set_learning_rate(optimizer, learning_rate(batch.step, paced, epoch))
        self.learner.prepare_step(batch)
        loss = self.learner.loss(batch)
        penalty = network.tuning.penalty()
        self.scaler.scale(loss if penalty is None else loss + penalty).backward()
        self.scaler.unscale_(optimizer)
        if self.config.optim.clip_grad:
            nn.utils.clip_grad_norm_(network.parameters(), self.config.optim.clip_grad)
        self.scaler.step(optimizer)
        self.scaler.update()
        if any(one.requires_grad for one in network.tuned.values()):
            network.tuning.after_update(batch.step, batch.total)
        optimizer.zero_grad(set_to_none=True)
        self.learner.after_step(batch)
        progress.losses.append(loss.detach())
        progress.step += 1
        progress.number += 1
        self.steps_here += 1
        self.samples_here += len(batch.labels)

    def _batch(self, course: Course, step: int) -> StepBatch:
        """The new samples of a step of the present segment."""
        progress, device = self.progress, self.setting.device
        number = progress.number - progress.step + step
        rows, positions, epoch = course.at(step)
        labels = torch.from_numpy(self.train.labels[rows]).to(device)
        augmented = self.setting.augment(
            self.train.tokens(rows),
            labels,
            positions=torch.from_numpy(positions).to(device),
            seed=course.seed,
            epoch=epoch,
        )
        task_free = self.setting.stream.task_free
        return StepBatch(
            inputs=augmented.inputs,
            labels=labels,
            rows=torch.from_numpy(rows),
            step=number if task_free else step,
            total=self.total if task_free else course.num_steps,
            number=number,
        )

    def _answer(self, *, after: int) -> tuple[Answers, float]:
        return answer(
            self.learner, self.setting.stream, self.evaluated.labelled_inputs, after=after
        )

    def _evaluate(self, segment: Segment) -> None:
        """Ask for all answers after a segment."""
        answers, of_met = self._answer(after=segment.task.index)
        stream = self.setting.stream
        counts = [len(task.val_rows) for task in stream.tasks]
        seen = range(segment.task.index + 1)
        accuracy = sum(answers.hits[JOINT][i] for i in seen) / sum(counts[i] for i in seen)
        if stream.task_free:
            accuracy = of_met
            self.progress.curve.append((float(segment.samples), accuracy))
        if segment.ends_task:
            self.progress.answers.append(answers)
        figures = {"task": float(segment.task.index), "accuracy": float(accuracy)}
        self.latest["val_accuracy"] = figures["accuracy"]
        self._record("val", figures)
        self._say_segment(segment, figures["accuracy"])

    def _say_start(self, resumed: bool) -> None:
        """Log what learns what, and how far an earlier call got."""
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
        if resumed:
            _LOG.info(
                "resuming after step %s of %s", f"{self.progress.number:,}", f"{self.total:,}"
            )

    def _say_segment(self, segment: Segment, accuracy: float) -> None:
        """Log what is known after a segment, and how long the rest takes."""
        number, shown = self.progress.number, [f"accuracy {accuracy:.4f}"]
        if "loss" in self.latest:
            shown.insert(0, f"loss {self.latest['loss']:.4g}")
        if self.busy_seconds:
            shown.append(human_rate(self.samples_here / self.busy_seconds, "samples"))
        if self.steps_here and number < self.total:
            spent = time.perf_counter() - self.started
            shown.append(f"{human_seconds((self.total - number) * spent / self.steps_here)} left")
        _LOG.info(
            "task %d of %d, step %s of %s: %s",
            segment.task.index + 1,
            len(self.setting.stream.tasks),
            f"{number:,}",
            f"{self.total:,}",
            ", ".join(shown),
        )

    def _check_weights(self) -> None:
        """Look at everything that is trained.

        Raises:
            SeitError: the last step, or the end of a task, ruined some.
        """
        what = describe_ruin(self.learner.network)
        if what is None and not self.learner.takes_steps:
            name = first_not_finite(self.learner.state())
            what = (
                None if name is None else f"what {self.config.method} keeps ({name}) is not finite"
            )
        if what is not None:
            raise self._failure(Failure(what, max(0, self.progress.number - 1), ()))

    def _failure(self, failure: Failure) -> SeitError:
        """Write the new samples of the failing step; returns the error to raise."""
        progress, course = self.progress, self.courses[self.progress.segment]
        found = list_checkpoints(self.run.checkpoints)
        step = min(max(0, failure.step - (progress.number - progress.step)), course.num_steps - 1)
        tensors: dict[str, Tensor] = {}
        keys: list[str] = []
        if self.learner.takes_steps:
            batch = self._batch(course, step)
            tensors = {"inputs": batch.inputs, "labels": batch.labels, "rows": batch.rows}
            keys = [self.train.keys[row] for row in batch.rows.tolist()]
        epoch = self.total if self.setting.stream.task_free else course.steps_per_epoch
        rate = learning_rate(step, self._paced(course), epoch) if tensors else 0.0
        return write_failure(
            self.run,
            failure,
            tensors,
            keys=keys,
            rate=rate,
            checkpoint=found[-1] if found else None,
        )

    def _check_losses(self, *, write: bool, seconds: float) -> None:
        """Look at the losses since the last line of the metrics.

        Raises:
            SeitError: one is not finite.
        """
        untold = self.progress.losses
        if not untold:
            return
        losses = torch.stack(untold).tolist()
        failed = first_failure(losses)
        if failed is not None:
            what = f"the training loss became {losses[failed]}"
            step = self.progress.number - len(losses) + failed
            raise self._failure(Failure(what, step, losses[: failed + 1]))
        busy = self.busy_seconds + seconds
        figures = {"loss": math.fsum(losses) / len(losses)}
        if busy:
            figures["samples_per_second"] = self.samples_here / busy
        self.latest.update(figures)
        if write:
            untold.clear()
            self._record("train", figures)

    def _record(self, split: str, figures: dict[str, float]) -> None:
        self.run.append_metrics({"step": self._mark, "split": split, **figures})
        for logger in self.loggers:
            logger.log(self._mark, split, figures)

    def _save(self) -> None:
        save_checkpoint(self.run.checkpoints, self._mark, self.state)
