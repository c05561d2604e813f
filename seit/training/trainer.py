"""Training loop of an objective: feed, evaluations, and the files of a finished run."""

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from seit.errors import ChangedError
from seit.models import count_parameters
from seit.progress import Progress, human_rate, human_seconds
from seit.shards import Store
from seit.training.checkpoint import TrainState
from seit.training.failure import describe_figures
from seit.training.feeds import TrainBatch
from seit.training.loop import Loop
from seit.training.objective import Objective
from seit.training.optimizer import learning_rate, num_steps, warmup_remark
from seit.training.precision import suggest_precision
from seit.training.run import Run
from seit.training.signals import Stop
from seit.training.speech.data import SoundData
from seit.training.step import Stepper
from seit.training.versions import environment

NUM_EVALUATIONS = 10
_LOG = logging.getLogger(__name__)


class Trainer(Loop[TrainBatch]):
    """Loop of one call of :func:`seit.training.launch.run_objective`."""

    def __init__(
        self,
        objective: Objective[Any],
        store: Store | SoundData,
        stepper: Stepper,
        run: Run,
        progress: Progress | None,
    ) -> None:
        self.objective = objective
        self.config = objective.config
        super().__init__(
            run, self.config, self.config.run, objective.ranks, progress, parts=objective.parts
        )
        self.store = store
        self.feed = objective.feed
        self.stepper = stepper
        assert self.feed.train is not None
        self.steps_per_epoch = len(self.feed.train)
        self.total = num_steps(self.config.schedule, self.steps_per_epoch)
        self.batch_size = self.config.data.batch_size
        self.eval_every = self.config.run.eval_every or max(
            1, math.ceil(self.total / NUM_EVALUATIONS)
        )
        average = stepper.average.module if stepper.average is not None else None
        self.state = TrainState(
            stepper.model, average, stepper.optimizer, also=(stepper.update, self.journal)
        )
        self._evaluated = False

    @override
    def batches(self, step: int) -> Generator[TrainBatch]:
        return self.feed.train_batches(step)

    @override
    def take(self, step: int, batch: TrainBatch) -> Tensor:
        return self.stepper.step(
            step, batch, steps_per_epoch=self.steps_per_epoch, total=self.total
        )

    @override
    def rate(self, step: int) -> float:
        return learning_rate(step, self.config, self.steps_per_epoch)

    @override
    def inputs(self, step: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        with closing(self.feed.train_batches(step)) as batches:
            batch = next(batches)
        keys = self.store[self.config.data.train_split].keys
        augmented = batch.augmented._asdict()
        names = ("inputs", "labels", "partner_labels", "weight")
        tensors = {name: augmented[name] for name in names} | {"rows": batch.rows}
        return tensors, [keys[row] for row in batch.rows.tolist()]

    @override
    def networks(self) -> Sequence[nn.Module | None]:
        return self.stepper.model, self.stepper.evaluated_model

    @override
    def align(self) -> None:
        for model in {id(one): one for one in self.networks() if one is not None}.values():
            self.ranks.average_statistics(model)

    @override
    def begin(self, *, resumed: bool) -> None:
        self.stepper.keep_sparse()
        self._say_start()
        self.stepper.model.train()

    @override
    def learn(self, stop: Stop) -> bool:
        try:
            ended = super().learn(stop)
        except ChangedError as error:
            raise self._explained(error) from error
        if ended and not self._evaluated:
            self._measure()
        return ended

    @override
    def evaluate(self) -> None:
        figures = self._measure()
        self._evaluated = True
        self.journal.latest |= {f"val_{name}": value for name, value in figures.items()}
        self.journal.record(self.done, "val", figures)
        self._say_evaluation(figures)

    def _measure(self) -> Mapping[str, float]:
        self.check_weights()
        with self.stepper.eager():
            figures = self.objective.evaluate(self.stepper.evaluated_model)
        self.refuse(describe_figures(figures))
        return figures

    def _explained(self, error: ChangedError) -> ChangedError:
        """Save the state of a run whose store was replaced; return an error that explains it."""
        if self.ranks.world_size == 1 and self.journal.steps:
            self.check_losses(write=False)
            self.save()
        self.journal.close(None)
        return ChangedError(
            f"{error}. The run {self.run.path} stopped at step {self.done}; restore the store, "
            f"then resume with `seit {self.run.command} … --resume`"
        )

    def leave(self, result: Any) -> None:
        """Write the files of a finished run, and finally mark it as finished."""
        with self.stepper.eager():
            self._leave(result)

    def _leave(self, result: Any) -> None:
        run, model = self.run, self.stepper.evaluated_model
        self.objective.save_weights(run, model)
        sparsity = self.stepper.sparsity
        info = {
            **run.info,
            "result": asdict(result),
            "ranks": self.ranks.world_size,
            "environment": environment(self.ranks.device),
            **({"sparsity": sparsity.describe()} if sparsity is not None else {}),
            **self.objective.footprint(run, model),
            **self.objective.leave(run, model),
        }
        self.objective.report(run, model, info)
        run.write_info({**info, "status": "finished"})
        known = {name: one for name, one in asdict(result).items() if one is not None}
        self.journal.close(known)

    def _say_start(self) -> None:
        """Log the network, the data, the device and the length of the run."""
        if not self.ranks.is_main or self.done >= self.total:
            return
        _LOG.info(
            "training %s, %s parameters, on %s of %s: %s steps of %s samples (%.3g epochs) on %s",
            self.config.model.name,
            f"{count_parameters(self.objective.model):,}",
            self.config.data.train_split,
            self.store.folder,
            f"{self.total:,}",
            self.batch_size,
            self.total / self.steps_per_epoch,
            environment(self.ranks.device)["device"],
        )
        remark = warmup_remark(self.config, self.steps_per_epoch)
        if remark is not None:
            _LOG.warning("%s", remark)
        suggestion = suggest_precision(self.config, self.ranks.device)
        if suggestion is not None:
            _LOG.info("%s", suggestion)
        if self.config.run.compile:
            _LOG.info("compiling the network; the first step takes a while")

    def _say_evaluation(self, figures: Mapping[str, float]) -> None:
        """Log progress, metrics and the estimated remaining time."""
        if not self.ranks.is_main:
            return
        journal = self.journal
        shown = {"loss": f"loss {journal.latest['loss']:.4g}"} if "loss" in journal.latest else {}
        for name, text in self.objective.shown.items():
            if name in figures:
                shown[f"val_{name}"] = text.format(figures[name])
        left = (self.total - self.done) * journal.seconds_per_step
        _LOG.info(
            "step %s of %s, epoch %.3g: %s, %s%s",
            f"{self.done:,}",
            f"{self.total:,}",
            self.done / self.steps_per_epoch,
            ", ".join(shown.values()),
            human_rate(journal.samples_per_second, "samples"),
            f", {human_seconds(left)} left" if left else "",
        )
