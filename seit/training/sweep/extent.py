"""Extent of a sweep: trials, rungs, budget and limits of size."""

import re
from dataclasses import dataclass

from seit.errors import UsageError

_BUDGET = re.compile(r"([1-9][0-9]{0,11})(s?)")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Extent of a sweep.

    Attributes:
        trials: number of trials.
        rungs: rungs of successive halving; with 1, all trials are trained to the end.
        reduction: factor between the steps of rungs, and between the numbers of trials.
        dev: share of the training samples that trials are judged on and not trained on, 0–1.
        budget: most steps of all trials, such as ``20000``, or most seconds, such as ``600s``;
            fewer trials are drawn if they take more. None for no limit.
        max_bytes: largest weights in float32, in bytes; larger networks are not trained.
        max_flops: most operations of a forward pass of one sample, likewise.
    """

    trials: int = 9
    rungs: int = 3
    reduction: int = 3
    dev: float = 0.1
    budget: str | None = None
    max_bytes: int | None = None
    max_flops: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= 10_000:
            raise UsageError(f"--trials is {self.trials}; it must be from 1 to 10,000")
        if not 0 < self.dev < 1:
            raise UsageError(f"--dev is {self.dev}; it is above 0 and below 1")
        if self.budget is not None and not _BUDGET.fullmatch(self.budget):
            raise UsageError(
                f"--budget is {self.budget!r}; it is a number of steps, such as 20000, or of "
                "seconds, such as 600s"
            )

    @property
    def budget_steps(self) -> int | None:
        """Most steps; None without."""
        return self._limit(unit="")

    @property
    def budget_seconds(self) -> int | None:
        """Most seconds; None without."""
        return self._limit(unit="s")

    def _limit(self, *, unit: str) -> int | None:
        found = None if self.budget is None else _BUDGET.fullmatch(self.budget)
        return int(found[1]) if found and found[2] == unit else None
