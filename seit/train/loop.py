"""The one training loop, of one process or of several that `torchrun` started."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError, SeitError
from seit.models import count_parameters, load_weights
from seit.settings import to_mapping
from seit.shards import Store, open_store
from seit.train.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from seit.train.config import TrainConfig
from seit.train.evaluate import Evaluation, evaluate
from seit.train.failure import first_failure, report_failure
from seit.train.feeds import Feed, TrainBatch, build_model, make_feed
from seit.train.loggers import Logger, make_loggers
from seit.train.optim import learning_rate, num_steps
from seit.train.ranks import Ranks, join_ranks
from seit.train.report import write_run_report
from seit.train.run import Run, environment
from seit.train.stepping import Stepper
from seit.train.stopping import Stop, listen
from seit.train.teacher import make_teacher

NUM_EVALUATIONS = 10
Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, the latest figures)."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        top1: accuracy of the evaluated weights on the validation split, 0–1.
        top5: the same among the five highest logits.
        loss: mean cross-entropy there, in nats.
        steps: steps of the whole run.
        samples_per_second: training rate of this call, evaluation left out.
        data_wait_fraction: share of that time spent waiting for the next augmented batch.
        seconds: duration of this call.
        parameters: trainable parameters.
    """

    top1: float
    top5: float
    loss: float
    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int


def train(
    config: TrainConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a classifier on ``store`` and leave a run folder at ``out``.

    Args:
        config: what to do.
        store: the store, opened or by path.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: go on where that run stopped, if there is one; the result is bit for bit that of an
            undisturbed run on the same CPU with as many ranks. A finished run is left as it is and
            its result returned, unless ``config`` has a longer schedule.
        init_from: a finished run whose weights to start from.
        progress: called after each step, on the main rank.

    Raises:
        UsageError: settings, store and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the step under way and a checkpoint.
    """
    store = store if isinstance(store, Store) else open_store(store)
    with join_ranks(config.run.device) as ranks:
        return _train(config, store, Path(out), resume, init_from, progress, ranks)


def _train(
    config: TrainConfig,
    store: Store,
    out: Path,
    resume: bool,
    init_from: str | Path | None,
    progress: Progress | None,
    ranks: Ranks,
) -> TrainResult:
    started = time.perf_counter()
    if resume and (recorded := _recorded_result(out, config, store)):
        return recorded
    torch.manual_seed(config.run.seed)
    feed = make_feed(store, config, ranks.device, rank=ranks.part)
    model = build_model(
        config.model,
        feed.augment,
        num_classes=len(store.classes),
        patch_size=_pixels_per_token(store),
    )
    if init_from is not None:
        load_weights(model, Run.open(init_from).load_weights(), origin=str(init_from))
    run = _enter(out, config, store, ranks, resume=resume)
    teacher = make_teacher(config, store, ranks, run.path)
    stepper = Stepper(config, model.to(ranks.device), ranks, teacher)
    training = _Training(config, store, feed, stepper, run, progress if ranks.is_main else None)
    with listen() as stop:
        evaluation = training.finish(stop)
    result = TrainResult(
        **evaluation.metrics(),
        steps=training.total,
        samples_per_second=training.samples_per_second,
        data_wait_fraction=training.data_wait_fraction,
        seconds=time.perf_counter() - started,
        parameters=count_parameters(model),
    )
    if ranks.is_main:
        training.leave(result, evaluation)
    ranks.wait()
    return result


def _enter(out: Path, config: TrainConfig, store: Store, ranks: Ranks, *, resume: bool) -> Run:
    """The run's folder, which the main rank makes."""
    if ranks.is_main:
        Run.start(out, config, store, resume=resume)
    ranks.wait()
    return Run.open(out)


@dataclass(frozen=True)
class _State(TrainState):
    """Also the loss scale of fp16, and the losses that no line of the metrics has told yet."""

    scaler: torch.amp.GradScaler
    losses: list[Tensor]
    device: torch.device

    @override
    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        if self.losses:
            tensors["losses"] = torch.stack(self.losses).cpu()
        for key, value in self.scaler.state_dict().items():
            tensors[f"scaler.{key}"] = torch.tensor(value, dtype=torch.float64)
        return tensors

    @override
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        self.losses[:] = tensors.get("losses", torch.empty(0)).to(self.device).unbind()
        saved = self.scaler.state_dict()
        try:
            values = {key: type(old)(tensors[f"scaler.{key}"]) for key, old in saved.items()}
        except KeyError as error:
            raise DamagedError(f"the checkpoint holds no {error.args[0]}") from error
        self.scaler.load_state_dict(values)


class _NotFiniteError(Exception):
    """A loss is not finite: that of ``step`` (from 0), the last of ``losses``."""

    def __init__(self, step: int, losses: Sequence[float]) -> None:
        super().__init__(step)
        self.step = step
        self.losses = losses


class _Training:
    """The state of one call of :func:`train`."""

    def __init__(
        self,
        config: TrainConfig,
        store: Store,
        feed: Feed,
        stepper: Stepper,
        run: Run,
        progress: Progress | None,
    ) -> None:
        assert feed.train is not None
        self.config = config
        self.store = store
        self.feed = feed
        self.stepper = stepper
        self.ranks = stepper.ranks
        self.run = run
        self.progress = progress
        self.steps_per_epoch = len(feed.train)
        self.total = num_steps(config.schedule, self.steps_per_epoch)
        self.eval_every = config.run.eval_every or max(1, math.ceil(self.total / NUM_EVALUATIONS))
        self.loggers: Sequence[Logger] = ()
        self.losses: list[Tensor] = []
        self.latest: dict[str, float] = {}
        self.busy_seconds = 0.0
        self.wait_seconds = 0.0
        self.steps_here = 0

    @property
    def samples_per_second(self) -> float:
        """Training rate of this call, over all ranks."""
        samples = self.steps_here * self.config.data.batch_size
        return samples / self.busy_seconds if self.busy_seconds else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """Share of the training time spent on the next batch."""
        return self.wait_seconds / self.busy_seconds if self.busy_seconds else 0.0

    def finish(self, stop: Stop) -> Evaluation:
        """Run the steps that are left; save, evaluate and return the evaluation of the end."""
        stepper = self.stepper
        average = stepper.average.module if stepper.average is not None else None
        state = _State(
            stepper.model,
            average,
            stepper.optimizer,
            stepper.scaler,
            self.losses,
            self.ranks.device,
        )
        step = self._resume(state)
        stepper.model.train()
        try:
            with closing(self.feed.train_batches(step)) as batches:
                evaluation = self._run(step, batches, state, stop)
        except _NotFiniteError as failed:
            self._fail(failed)
        if evaluation is None:
            self._close(None)
            raise KeyboardInterrupt
        return evaluation

    def _run(
        self, step: int, batches: Iterator[TrainBatch], state: _State, stop: Stop
    ) -> Evaluation | None:
        """Take the steps that are left; None where it was asked to stop before the end."""
        evaluation: Evaluation | None = None
        mark = time.perf_counter()
        while step < self.total:
            waited = time.perf_counter()
            batch = next(batches)
            self.wait_seconds += time.perf_counter() - waited
            loss = self.stepper.step(step, batch, steps_per_epoch=self.steps_per_epoch)
            self.losses.append(loss)
            step += 1
            self.steps_here += 1
            logs, evaluates, saves = self._due(step)
            stops = self._agree_to_stop(stop, logs)
            if logs or saves or stops:
                self._check_finite(step, write=logs, seconds=time.perf_counter() - mark)
            if evaluates:
                self.busy_seconds += time.perf_counter() - mark
                evaluation = self._evaluate(step)
                mark = time.perf_counter()
            if saves or stops:
                self._save(step, state)
            if self.progress:
                self.progress(step, self.total, self.latest)
            if stops and step < self.total:
                return None
        return evaluation or self._evaluate(step, record=False)

    def leave(self, result: TrainResult, evaluation: Evaluation) -> None:
        """Write what a finished run leaves behind."""
        self.run.save_weights(self.stepper.evaluated_model)
        labels = self.store[self.config.data.val_split].labels
        self.run.save_predictions(evaluation.predictions, labels)
        self.run.write_info(
            {
                **self.run.info,
                "status": "finished",
                "result": asdict(result),
                "ranks": self.ranks.world_size,
                "environment": environment(self.ranks.device),
                "confusion": evaluation.confusion.tolist(),
            }
        )
        write_run_report(self.run, store=self.store)
        self._close(result)

    def _resume(self, state: _State) -> int:
        """Restore the latest checkpoint, if there is one; returns the steps done."""
        found = list_checkpoints(self.run.checkpoints)
        step = load_checkpoint(found[-1], state) if found else 0
        if self.ranks.is_main:
            self.run.rewind_metrics(step)
            settings = to_mapping(self.config)
            self.loggers = make_loggers(self.config.run.loggers, self.run.path, settings, step=step)
        self.ranks.wait()
        return step

    def _due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether to log, evaluate and save after ``step`` steps."""
        run, ends = self.config.run, step == self.total
        evaluates = step % self.eval_every == 0 or ends
        saves = step % run.checkpoint_every == 0 or ends if run.checkpoint_every else evaluates
        return step % run.log_every == 0 or ends, evaluates, saves

    def _agree_to_stop(self, stop: Stop, logs: bool) -> bool:
        """Whether all ranks stop after this step; several ask each other when they log."""
        if self.ranks.world_size == 1:
            return stop.requested
        return logs and self.ranks.any(stop.requested)

    def _check_finite(self, step: int, *, write: bool, seconds: float) -> None:
        """Look at the losses since the last line of the metrics, and write the next one.

        Raises:
            _NotFiniteError: one is not finite.
        """
        mean = self.ranks.sum(torch.stack(self.losses)) / self.ranks.world_size
        self.losses[:] = mean.unbind()
        losses = mean.tolist()
        failed = first_failure(losses)
        if failed is not None:
            raise _NotFiniteError(step - len(losses) + failed, losses[: failed + 1])
        if write:
            self._log(step, sum(losses) / len(losses), seconds)
            self.losses.clear()

    def _fail(self, failed: "_NotFiniteError") -> NoReturn:
        found = list_checkpoints(self.run.checkpoints)
        error = SeitError("the training loss is not finite any more; the main rank says where")
        if self.ranks.is_main:
            error = report_failure(
                self.run,
                self.feed,
                self.store[self.config.data.train_split],
                step=failed.step,
                losses=failed.losses,
                rate=learning_rate(failed.step, self.config, self.steps_per_epoch),
                checkpoint=found[-1] if found else None,
            )
            self._close(None)
        raise error

    def _log(self, step: int, loss: float, seconds_since_mark: float) -> None:
        busy = self.busy_seconds + seconds_since_mark
        figures = {
            "loss": loss,
            "lr": learning_rate(step - 1, self.config, self.steps_per_epoch),
            "samples_per_second": self.steps_here * self.config.data.batch_size / busy,
            "data_wait_fraction": self.wait_seconds / busy,
        }
        self.latest.update(figures)
        self._record(step, "train", figures)

    def _evaluate(self, step: int, *, record: bool = True) -> Evaluation:
        evaluation = evaluate(
            self.stepper.evaluated_model,
            self.feed.evaluation_inputs(),
            num_classes=len(self.feed.classes),
            device=self.ranks.device,
            autocast=self.stepper.autocast,
            ranks=self.ranks,
        )
        if record:
            self.latest["val_top1"] = evaluation.top1
            self._record(step, "val", evaluation.metrics())
        return evaluation

    def _record(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        if self.ranks.is_main:
            self.run.append_metrics({"step": step, "split": split, **figures})
            for logger in self.loggers:
                logger.log(step, split, figures)

    def _save(self, step: int, state: _State) -> None:
        if self.ranks.is_main:
            save_checkpoint(self.run.checkpoints, step, state)

    def _close(self, result: TrainResult | None) -> None:
        for logger in self.loggers:
            logger.finish(None if result is None else asdict(result))


def _recorded_result(out: Path, config: TrainConfig, store: Store) -> TrainResult | None:
    """The result of the run at ``out``, if it has finished all steps that ``config`` asks for."""
    if not Run.exists(out):
        return None
    run = Run.open(out)
    run.check_same(config, store)
    if run.info["status"] != "finished" or run.config.schedule != config.schedule:
        return None
    return TrainResult(**run.info["result"])


def _pixels_per_token(store: Store) -> int:
    """Pixels per token along a side; 1 where the tokens are none of images."""
    levels = len(store.codebook) if store.codebook.ndim == 3 else 1
    rows = store.card.tokenizer.grid[0] // levels
    return int(store.card.tokenizer.preprocessing.get("size", rows)) // rows
