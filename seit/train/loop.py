"""The one training loop, of one process or of several that `torchrun` started."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from seit.errors import ChangedError, DamagedError, SeitError
from seit.models import count_parameters
from seit.settings import to_mapping
from seit.shards import Store
from seit.train.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from seit.train.config import LoopConfig
from seit.train.failure import first_failure, report_failure
from seit.train.feeds import TrainBatch
from seit.train.loggers import Logger, make_loggers
from seit.train.objective import LoopFigures, Objective
from seit.train.optim import learning_rate, num_steps
from seit.train.ranks import Ranks, join_ranks
from seit.train.run import Run, environment
from seit.train.stepping import Stepper
from seit.train.stopping import Stop, listen

NUM_EVALUATIONS = 10
Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, the latest figures)."""
Result = TypeVar("Result")


def run_objective(
    make: Callable[[Ranks], Objective[Result]],
    config: LoopConfig,
    store: Store,
    *,
    out: Path,
    resume: bool,
    recorded: Callable[[Mapping[str, Any]], Result],
    progress: Progress | None,
    beside: Collection[str] = (),
) -> Result:
    """Train an objective on ``store`` and leave a run folder at ``out``.

    Args:
        make: builds the objective, torch's generator seeded; what it refuses leaves no folder.
        config: its settings.
        store: what it learns from.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: go on where that run stopped, if there is one.
        recorded: what `run.json` tells of a finished run → its result.
        progress: called after each step, on the main rank.
        beside: what else a new folder may hold.

    Raises:
        UsageError: settings, store and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the step under way and a checkpoint.
    """
    with join_ranks(config.run.device) as ranks:
        started = time.perf_counter()
        if resume and (found := _recorded_result(out, config, store)) is not None:
            return recorded(found)
        torch.manual_seed(config.run.seed)
        objective = make(ranks)
        run = _enter(out, config, store, ranks, resume=resume, beside=beside)
        objective.begin(run)
        training = _Training(
            objective, store, Stepper(objective, ranks), run, progress if ranks.is_main else None
        )
        with listen() as stop:
            training.finish(stop)
        result = objective.result(
            LoopFigures(
                steps=training.total,
                samples_per_second=training.samples_per_second,
                data_wait_fraction=training.data_wait_fraction,
                seconds=time.perf_counter() - started,
                parameters=count_parameters(objective.kept_model(objective.model)),
            )
        )
        if ranks.is_main:
            training.leave(result)
        ranks.wait()
        return result


def _enter(
    out: Path,
    config: LoopConfig,
    store: Store,
    ranks: Ranks,
    *,
    resume: bool,
    beside: Collection[str],
) -> Run:
    """The run's folder, which the main rank makes."""
    if ranks.is_main:
        Run.start(out, config, store, resume=resume, beside=beside)
    ranks.wait()
    run = Run.open(out)
    run.check_store(store)  # each rank opened it by itself
    return run


@dataclass(frozen=True)
class _State(TrainState):
    """Also the loss scale of fp16, and the losses (P,) that no line of the metrics has told yet."""

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
    """The state of one call of :func:`run_objective`."""

    def __init__(
        self,
        objective: Objective[Any],
        store: Store,
        stepper: Stepper,
        run: Run,
        progress: Progress | None,
    ) -> None:
        self.objective = objective
        self.config = objective.config
        self.store = store
        self.feed = objective.feed
        self.stepper = stepper
        self.ranks = objective.ranks
        self.run = run
        self.progress = progress
        assert self.feed.train is not None
        self.steps_per_epoch = len(self.feed.train)
        self.total = num_steps(self.config.schedule, self.steps_per_epoch)
        self.eval_every = self.config.run.eval_every or max(
            1, math.ceil(self.total / NUM_EVALUATIONS)
        )
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

    def finish(self, stop: Stop) -> None:
        """Run the steps that are left; save and evaluate, at the end too."""
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
                ended = self._run(step, batches, state, stop)
        except _NotFiniteError as failed:
            self._fail(failed)
        if not ended:
            self._close(None)
            raise KeyboardInterrupt

    def _run(self, step: int, batches: Iterator[TrainBatch], state: _State, stop: Stop) -> bool:
        """Take the steps that are left; whether the end was reached before a wish to stop."""
        evaluated = False
        mark = time.perf_counter()
        while step < self.total:
            waited = time.perf_counter()
            try:
                batch = next(batches)
            except ChangedError as error:
                raise self._explained(error, step, state) from error
            self.wait_seconds += time.perf_counter() - waited
            losses_P = self.stepper.step(
                step, batch, steps_per_epoch=self.steps_per_epoch, total=self.total
            )
            self.losses.append(losses_P)
            step += 1
            self.steps_here += 1
            logs, evaluates, saves = self._due(step)
            stops = self._agree_to_stop(stop, logs)
            if logs or saves or stops:
                self._check_finite(step, write=logs, seconds=time.perf_counter() - mark)
            if evaluates:
                self.busy_seconds += time.perf_counter() - mark
                self._evaluate(step)
                evaluated = True
                mark = time.perf_counter()
            if saves or stops:
                self._save(step, state)
            if self.progress:
                self.progress(step, self.total, self.latest)
            if stops and step < self.total:
                return False
        if not evaluated:
            self._evaluate(step, record=False)
        return True

    def _explained(self, error: ChangedError, step: int, state: _State) -> ChangedError:
        """Save what there is of a run whose store was replaced; the error that says so."""
        if self.ranks.world_size == 1 and self.steps_here:
            if self.losses:
                self._check_finite(step, write=False, seconds=0.0)
            self._save(step, state)
        self._close(None)
        return ChangedError(
            f"{error}. The run {self.run.path} stopped at step {step}; with the store as it was, "
            f"`seit {self.run.command} … --resume` continues it"
        )

    def leave(self, result: Any) -> None:
        """Write what a finished run leaves behind."""
        model = self.stepper.evaluated_model
        self.run.save_weights(self.objective.kept_model(model))
        sparsity = self.stepper.sparsity
        self.objective.leave(
            self.run,
            model,
            {
                **self.run.info,
                "status": "finished",
                "result": asdict(result),
                "ranks": self.ranks.world_size,
                "environment": environment(self.ranks.device),
                **({"sparsity": sparsity.describe()} if sparsity is not None else {}),
            },
        )
        self._close(asdict(result))

    def _resume(self, state: _State) -> int:
        """Restore the latest checkpoint, if there is one; returns the steps done."""
        found = list_checkpoints(self.run.checkpoints)
        step = load_checkpoint(found[-1], state) if found else 0
        self.stepper.keep_sparse()
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
        mean_nP = self.ranks.sum(torch.stack(self.losses)) / self.ranks.world_size
        self.losses[:] = mean_nP.unbind()
        losses = mean_nP[:, 0].tolist()
        failed = first_failure(losses)
        if failed is not None:
            raise _NotFiniteError(step - len(losses) + failed, losses[: failed + 1])
        if write:
            self._log(step, mean_nP.double().mean(0).tolist(), seconds)
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

    def _log(self, step: int, losses: Sequence[float], seconds_since_mark: float) -> None:
        busy = self.busy_seconds + seconds_since_mark
        figures = {
            **dict(zip(self.objective.parts, losses, strict=True)),
            "lr": learning_rate(step - 1, self.config, self.steps_per_epoch),
            "samples_per_second": self.steps_here * self.config.data.batch_size / busy,
            "data_wait_fraction": self.wait_seconds / busy,
        }
        self.latest.update(figures)
        self._record(step, "train", figures)

    def _evaluate(self, step: int, *, record: bool = True) -> None:
        figures = self.objective.evaluate(self.stepper.evaluated_model)
        if record:
            self.latest.update({f"val_{name}": value for name, value in figures.items()})
            self._record(step, "val", figures)

    def _record(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        if self.ranks.is_main:
            self.run.append_metrics({"step": step, "split": split, **figures})
            for logger in self.loggers:
                logger.log(step, split, figures)

    def _save(self, step: int, state: _State) -> None:
        if self.ranks.is_main:
            save_checkpoint(self.run.checkpoints, step, state)

    def _close(self, result: Mapping[str, Any] | None) -> None:
        for logger in self.loggers:
            logger.finish(result)


def _recorded_result(out: Path, config: LoopConfig, store: Store) -> Mapping[str, Any] | None:
    """The result of the run at ``out``, if it has finished all steps that ``config`` asks for."""
    if not Run.exists(out):
        return None
    run = Run.open(out)
    run.check_same(config, store)
    if run.info["status"] != "finished" or run.settings.schedule != config.schedule:
        return None
    found: Mapping[str, Any] = run.info["result"]
    return found
