"""Record of a loop's losses, rates and metrics, in `metrics.jsonl` and loggers.

Legend: P parts of the loss.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seit.training.failure import Failure, NotFiniteError, first_failure
from seit.training.loggers import Logger, make_loggers
from seit.training.ranks import Ranks
from seit.training.run import Run


class Journal:
    """Record of one call of a loop, written by the main rank.

    Args:
        run: the folder.
        ranks: ranks of the run.
        parts: names of the P parts of the loss.
        loggers: names of additional loggers, as in `run.loggers`.
        settings: settings of the run, nested.

    Attributes:
        losses: (P,) of each step that no line of the metrics covers yet; saved in checkpoints.
        latest: the latest metrics, by name.
        steps: steps of this call.
        samples: samples of these steps, over all ranks.
    """

    def __init__(
        self,
        run: Run,
        ranks: Ranks,
        *,
        parts: Sequence[str],
        loggers: Sequence[str],
        settings: Mapping[str, Any],
    ) -> None:
        self._run = run
        self._ranks = ranks
        self._parts = parts
        self._names = loggers
        self._settings = settings
        self._loggers: Sequence[Logger] = ()
        self.losses: list[Tensor] = []
        self.latest: dict[str, float] = {}
        self.steps = 0
        self.samples = 0
        self._busy_seconds = 0.0
        self._wait_seconds = 0.0
        self._mark: float | None = None
        self._started = 0.0

    def open(self, mark: int) -> None:
        """Start after step ``mark``: drop later lines of the metrics, and open the loggers."""
        if self._ranks.is_main:
            self._run.rewind_metrics(mark)
            lines = [entry for entry in self._run.metrics() if entry["split"] == "train"]
            last = lines[-1] if lines else {}
            self.latest |= {key: last[key] for key in last if key not in ("step", "split")}
            self._loggers = make_loggers(self._names, self._run.path, self._settings, step=mark)
        self._started = time.perf_counter()

    def close(self, result: Mapping[str, Any] | None) -> None:
        """Close the loggers, with the result, or None if the run was interrupted."""
        for logger in self._loggers:
            logger.finish(result)
        self._loggers = ()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time as training."""
        self._mark = time.perf_counter()
        try:
            yield
        finally:
            self._busy_seconds, self._mark = self.busy_seconds, None

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Exclude the time, as for an evaluation between steps."""
        self._busy_seconds = self.busy_seconds
        try:
            yield
        finally:
            self._mark = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time as waiting for data."""
        started = time.perf_counter()
        yield
        self._wait_seconds += time.perf_counter() - started

    @property
    def busy_seconds(self) -> float:
        """Training time of this call, in seconds."""
        now = 0.0 if self._mark is None else time.perf_counter() - self._mark
        return self._busy_seconds + now

    @property
    def seconds_per_step(self) -> float:
        """Time since the start per step of this call, including evaluations."""
        return (time.perf_counter() - self._started) / max(1, self.steps)

    @property
    def samples_per_second(self) -> float:
        """Training rate of this call, over all ranks; the last known one if it took no step."""
        if not self.steps:
            return self.latest.get("samples_per_second", 0.0)
        return self.samples / self.busy_seconds

    @property
    def data_wait_fraction(self) -> float:
        """Fraction of the training time spent waiting for the next batch, 0–1."""
        if not self.steps:
            return self.latest.get("data_wait_fraction", 0.0)
        return self._wait_seconds / self.busy_seconds

    def add(self, losses_P: Tensor, *, samples: int) -> None:
        """Add the losses of a step of ``samples`` samples, NaN for parts that it does not have."""
        self.losses.append(losses_P)
        self.steps += 1
        self.samples += samples

    def check(self, step: int, *, mark: int, rate: float, write: bool) -> None:
        """Check the losses since the last line of the metrics, and write the next line.

        Args:
            step: number of steps done.
            mark: number of the line.
            rate: the learning rate of the last step.
            write: whether a line is due.

        Raises:
            NotFiniteError: a loss is not finite.
        """
        if not self.losses:
            return
        mean_nP = self._ranks.sum(torch.stack(self.losses)) / self._ranks.world_size
        self.losses[:] = mean_nP.unbind()
        losses = mean_nP[:, 0].tolist()
        failed = first_failure(losses)
        if failed is not None:
            what = f"the training loss became {losses[failed]}"
            raise NotFiniteError(Failure(what, step - len(losses) + failed, losses[: failed + 1]))
        if write:
            means = zip(self._parts, mean_nP.double().nanmean(0).tolist(), strict=True)
            figures = {
                **{name: mean for name, mean in means if not math.isnan(mean)},
                "lr": rate,
                "samples_per_second": self.samples_per_second,
                "data_wait_fraction": self.data_wait_fraction,
            }
            self.losses.clear()
            self.latest |= figures
            self.record(mark, "train", figures)

    def record(self, mark: int, split: str, figures: Mapping[str, float]) -> None:
        """Write metrics of a split after step ``mark``."""
        if self._ranks.is_main:
            self._run.append_metrics({"step": mark, "split": split, **figures})
            for logger in self._loggers:
                logger.log(mark, split, figures)

    def tensors(self) -> dict[str, Tensor]:
        """Return the losses (n, P) that no line of the metrics covers yet."""
        return {"losses": torch.stack(self.losses)} if self.losses else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore saved losses."""
        losses = tensors.get("losses", torch.empty(0)).to(self._ranks.device)
        self.losses[:] = losses.view(len(losses), -1).unbind() if len(losses) else ()
