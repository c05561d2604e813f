"""The one training loop: steps, evaluations, checkpoints and figures, on every rank alike."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from seit.config import to_mapping
from seit.errors import ChangedError, DamagedError, SeitError
from seit.models import count_parameters
from seit.progress import Progress, human_rate, human_seconds
from seit.shards import Store
from seit.training.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from seit.training.failure import (
    Failure,
    NotFiniteError,
    describe_figures,
    describe_ruin,
    first_failure,
    report_failure,
)
from seit.training.feeds import TrainBatch
from seit.training.loggers import Logger, make_loggers
from seit.training.objective import Objective
from seit.training.optimizer import learning_rate, num_steps
from seit.training.run import Run, environment
from seit.training.signals import Stop
from seit.training.step import Stepper

NUM_EVALUATIONS = 10
_LOG = logging.getLogger(__name__)


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


class Training:
    """The state of one call of :func:`seit.training.launch.run_objective`."""

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
        self.started = time.perf_counter()

    @property
    def samples_per_second(self) -> float:
        """Training rate of this call, over all ranks; the last one known where it took no step."""
        samples = self.steps_here * self.config.data.batch_size
        if not self.busy_seconds:
            return self.latest.get("samples_per_second", 0.0)
        return samples / self.busy_seconds

    @property
    def data_wait_fraction(self) -> float:
        """Share of the training time spent on the next batch."""
        if not self.busy_seconds:
            return self.latest.get("data_wait_fraction", 0.0)
        return self.wait_seconds / self.busy_seconds

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
        self._say_start(step)
        stepper.model.train()
        try:
            with closing(self.feed.train_batches(step)) as batches:
                ended = self._run(step, batches, state, stop)
        except NotFiniteError as found:
            self._fail(found.failure)
        if not ended:
            self._close(None)
            raise KeyboardInterrupt

    def _run(self, step: int, batches: Iterator[TrainBatch], state: _State, stop: Stop) -> bool:
        """Take the steps that are left; whether the end was reached before a wish to stop."""
        evaluated = False
        mark = self.started = time.perf_counter()
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
                if not evaluates:
                    self._check_weights(step)
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
        """Write what a finished run leaves behind; last of all that it is finished."""
        run, model = self.run, self.stepper.evaluated_model
        run.save_weights(self.objective.kept_model(model))
        sparsity = self.stepper.sparsity
        info = {
            **run.info,
            "result": asdict(result),
            "ranks": self.ranks.world_size,
            "environment": environment(self.ranks.device),
            **({"sparsity": sparsity.describe()} if sparsity is not None else {}),
            **self.objective.leave(run, model),
        }
        self.objective.report(run, model, info)
        run.write_info({**info, "status": "finished"})
        self._close(asdict(result))

    def _resume(self, state: _State) -> int:
        """Restore the latest checkpoint, if there is one; returns the steps done."""
        found = list_checkpoints(self.run.checkpoints)
        step = load_checkpoint(found[-1], state) if found else 0
        self.stepper.keep_sparse()
        if self.ranks.is_main:
            self.run.rewind_metrics(step)
            self.latest.update(_last_figures(self.run))
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
            NotFiniteError: one is not finite.
        """
        mean_nP = self.ranks.sum(torch.stack(self.losses)) / self.ranks.world_size
        self.losses[:] = mean_nP.unbind()
        losses = mean_nP[:, 0].tolist()
        failed = first_failure(losses)
        if failed is not None:
            what = f"the training loss became {losses[failed]}"
            raise NotFiniteError(Failure(what, step - len(losses) + failed, losses[: failed + 1]))
        if write:
            self._log(step, mean_nP.double().mean(0).tolist(), seconds)
            self.losses.clear()

    def _check_weights(self, step: int) -> None:
        """Look at all weights, and at those of the average.

        Raises:
            NotFiniteError: the update of the last step ruined some.
        """
        what = describe_ruin(self.stepper.model, self.stepper.evaluated_model)
        self._refuse(what, step)

    def _refuse(self, what: str | None, step: int) -> None:
        """Stop all ranks where one has found something after ``step`` steps.

        Raises:
            NotFiniteError: one has.
        """
        if self.ranks.any(what is not None):
            what = what or "the weights of another rank are not finite any more"
            raise NotFiniteError(Failure(what, max(0, step - 1), ()))

    def _fail(self, failure: Failure) -> NoReturn:
        found = list_checkpoints(self.run.checkpoints)
        error = SeitError("the training is not finite any more; the main rank says where")
        if self.ranks.is_main:
            error = report_failure(
                self.run,
                self.feed,
                self.store[self.config.data.train_split],
                failure,
                rate=learning_rate(failure.step, self.config, self.steps_per_epoch),
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
        self._check_weights(step)
        figures = self.objective.evaluate(self.stepper.evaluated_model)
        self._refuse(describe_figures(figures), step)
        if record:
            self.latest.update({f"val_{name}": value for name, value in figures.items()})
            self._record(step, "val", figures)
            self._say_evaluation(step, figures)

    def _say_start(self, step: int) -> None:
        """Log what is trained, on what, where and for how long."""
        if not self.ranks.is_main or step >= self.total:
            return
        if step:
            _LOG.info("resuming after step %s of %s", f"{step:,}", f"{self.total:,}")
        size = self.config.data.batch_size
        assert self.feed.train is not None
        _LOG.info(
            "training %s, %s parameters, on %s of %s: %s steps of %s samples (%.3g epochs) on %s",
            self.config.model.name,
            f"{count_parameters(self.objective.model):,}",
            self.config.data.train_split,
            self.store.folder,
            f"{self.total:,}",
            size,
            self.total / self.steps_per_epoch,
            environment(self.ranks.device)["device"],
        )
        if self.config.run.compile:
            _LOG.info("compiling the network; the first step takes a while")

    def _say_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Log how far the run is, how good, and how long the rest takes."""
        if not self.ranks.is_main:
            return
        left = (self.total - step) * (time.perf_counter() - self.started) / self.steps_here
        shown = {"loss": f"loss {self.latest['loss']:.4g}"} if "loss" in self.latest else {}
        for name, text in self.objective.shown.items():
            if name in figures:
                shown[f"val_{name}"] = text.format(figures[name])
        _LOG.info(
            "step %s of %s, epoch %.3g: %s, %s%s",
            f"{step:,}",
            f"{self.total:,}",
            step / self.steps_per_epoch,
            ", ".join(shown.values()),
            human_rate(self.samples_per_second, "samples"),
            f", {human_seconds(left)} left" if step < self.total else "",
        )

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


def _last_figures(run: Run) -> dict[str, float]:
    """The training figures that a run noted down last."""
    lines = [entry for entry in run.metrics() if entry["split"] == "train"]
    last = lines[-1] if lines else {}
    return {key: value for key, value in last.items() if key not in ("step", "split")}
