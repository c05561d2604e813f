"""The training loop: steps, metrics, checkpoints, and stop requests.

Every training is a :class:`Loop`: classifiers and pretraining (`Trainer`), continual learning,
tokenizers and TokenAdapt.

Legend: P parts of the loss.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from seit.config import to_mapping
from seit.errors import SeitError
from seit.progress import Progress
from seit.training.checkpoint import Saved, list_checkpoints, load_checkpoint, save_checkpoint
from seit.training.config import RunConfig
from seit.training.failure import Failure, NotFiniteError, describe_ruin, write_failure
from seit.training.journal import Journal
from seit.training.ranks import Ranks
from seit.training.run import Run
from seit.training.signals import Stop, listen

Batch = TypeVar("Batch")
_LOG = logging.getLogger(__name__)


class Loop(ABC, Generic[Batch]):
    """One call of a training, from its latest checkpoint, if there is one, to its end.

    Args:
        run: the folder.
        config: all settings, for the loggers.
        cadence: intervals of metrics and checkpoints, and the loggers.
        ranks: ranks of the run.
        progress: called after each step.
        parts: names of the P parts of the loss. The first is minimized.

    Attributes:
        state: the contents of a checkpoint.
        total: steps of the whole run.
        batch_size: samples per step, over all ranks.
        done: steps done.
        eval_every: steps between evaluations; 0 for none.
        remedy: advice for a run that is no longer finite.
    """

    state: Saved
    total: int
    batch_size: int
    eval_every = 0
    remedy = "lower optim.lr or set optim.clip_grad"

    def __init__(
        self,
        run: Run,
        config: Any,
        cadence: RunConfig,
        ranks: Ranks,
        progress: Progress | None,
        *,
        parts: Sequence[str] = ("loss",),
    ) -> None:
        self.run = run
        self.cadence = cadence
        self.ranks = ranks
        self.progress = progress
        self.done = 0
        self.journal = Journal(
            run, ranks, parts=parts, loggers=cadence.loggers, settings=to_mapping(config)
        )

    @abstractmethod
    def batches(self, step: int) -> Generator[Batch]:
        """Yield the batches from step ``step`` (from 0) on."""

    @abstractmethod
    def take(self, step: int, batch: Batch) -> Tensor:
        """Take step ``step`` (from 0); return the parts (P,) of its loss."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """Return the learning rate of step ``step`` (from 0)."""

    @abstractmethod
    def inputs(self, step: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        """Recreate the batch of step ``step`` (from 0): its tensors, and its samples' keys."""

    @abstractmethod
    def networks(self) -> Sequence[nn.Module | None]:
        """Return all networks that are trained or averaged."""

    def begin(self, *, resumed: bool) -> None:
        """Prepare the first step of this call, and log a description of the training."""

    def evaluate(self) -> None:
        """Evaluate the network after the steps so far."""

    def align(self) -> None:
        """Make the networks of all ranks equal, before they are evaluated or saved."""

    def samples(self, batch: Batch) -> int:
        """Return the number of samples of a batch, over all ranks."""
        del batch
        return self.batch_size

    @property
    def mark(self) -> int:
        """Number of the checkpoint and of the metrics line written now."""
        return self.done

    def finish(self) -> None:
        """Take the remaining steps.

        Raises:
            SeitError: a value is no longer finite.
            KeyboardInterrupt: at SIGINT or SIGTERM, after the current step and a checkpoint.
        """
        self.resume()
        try:
            with listen() as stop:
                ended = self.learn(stop)
        except NotFiniteError as found:
            raise self._fail(found.failure) from None
        if not ended:
            self.journal.close(None)
            raise KeyboardInterrupt

    def resume(self) -> None:
        """Restore the latest checkpoint, if there is one."""
        found = list_checkpoints(self.run.checkpoints)
        if found:
            self.done = load_checkpoint(found[-1], self.state)
        if 0 < self.done < self.total and self.ranks.is_main:
            _LOG.info("resuming after step %s of %s", f"{self.done:,}", f"{self.total:,}")
        self.begin(resumed=bool(found))
        self.journal.open(self.mark)
        self.ranks.wait()

    def learn(self, stop: Stop) -> bool:
        """Take the remaining steps; return whether the end was reached before a stop request."""
        return self.take_steps(self.total, stop)

    def take_steps(self, until: int, stop: Stop) -> bool:
        """Take steps until ``until`` are done; return False if a stop request came first."""
        journal = self.journal
        with journal.working(), closing(self.batches(self.done)) as batches:
            while self.done < until:
                with journal.waiting():
                    batch = next(batches)
                losses_P = self.take(self.done, batch)
                journal.add(losses_P, samples=self.samples(batch))
                self.done += 1
                logs, evaluates, saves = self.due(until)
                stops = self._agree_to_stop(stop, logs)
                if logs or saves or stops:
                    self.check_losses(write=logs)
                if evaluates or saves or stops:
                    self.align()
                if evaluates:
                    with journal.pausing():
                        self.evaluate()
                if saves or stops:
                    if not evaluates:
                        self.check_weights()
                    self.save()
                if self.progress:
                    self.progress(self.done, self.total, journal.latest)
                if stops and self.done < until:
                    return False
        return True

    def due(self, until: int) -> tuple[bool, bool, bool]:
        """Return whether to log, evaluate and save after the current step."""
        cadence, ends = self.cadence, self.done == until
        evaluates = bool(self.eval_every) and (self.done % self.eval_every == 0 or ends)
        every = cadence.checkpoint_every
        saves = self.done % every == 0 or ends if every else evaluates
        return self.done % cadence.log_every == 0 or ends, evaluates, saves

    def _agree_to_stop(self, stop: Stop, logs: bool) -> bool:
        """Return whether all ranks stop after this step; ranks synchronize only when they log."""
        if self.ranks.world_size == 1:
            return stop.requested
        return logs and self.ranks.any(stop.requested)

    def check_losses(self, *, write: bool) -> None:
        """Check the losses since the last line of the metrics, and write the next line.

        Raises:
            NotFiniteError: a loss is not finite.
        """
        self.journal.check(self.done, mark=self.mark, rate=self.rate(self.done - 1), write=write)

    def check_weights(self) -> None:
        """Check all weights and their averages.

        Raises:
            NotFiniteError: the update of the last step made some non-finite.
        """
        self.refuse(describe_ruin(*self.networks()))

    def refuse(self, what: str | None) -> None:
        """Stop all ranks if any has found a non-finite value.

        Raises:
            NotFiniteError: one has.
        """
        if self.ranks.any(what is not None):
            what = what or "the weights of another rank are no longer finite"
            raise NotFiniteError(Failure(what, max(0, self.done - 1), ()))

    def save(self) -> None:
        """Write a checkpoint."""
        if self.ranks.is_main:
            save_checkpoint(self.run.checkpoints, self.mark, self.state)

    def _fail(self, failure: Failure) -> SeitError:
        """Save the batch that failed; return the error to raise."""
        if not self.ranks.is_main:
            return SeitError("the loss is no longer finite; the main rank names the step")
        found = list_checkpoints(self.run.checkpoints)
        tensors, keys = self.inputs(failure.step)
        self.journal.close(None)
        return write_failure(
            self.run,
            failure,
            tensors,
            keys=keys,
            rate=self.rate(failure.step),
            checkpoint=found[-1] if found else None,
            remedy=self.remedy,
        )
