"""Rungs of successive halving (Jamieson and Talwalkar, arXiv 1502.07943).

All trials are trained to the first rung; the best 1/η of them to the next, and so on. Each trial
has the schedule of the whole length from its first step and is only paused at a rung, so that the
winner is the run that its settings give by themselves, bit for bit. Scores at early rungs are those
of runs whose learning rate has not come down yet.

Legend: η reduction, R rungs, S steps of a whole run, n trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """Steps at which trials are judged.

    Attributes:
        steps: S, of a whole run.
        count: R; with 1, all trials are trained to the end: random search.
        reduction: η.
    """

    steps: int
    count: int
    reduction: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 20:
            raise UsageError(f"--rungs is {self.count}; it must be from 1 to 20")
        if not 2 <= self.reduction <= 100:
            raise UsageError(f"--reduction is {self.reduction}; it must be from 2 to 100")
        if self.reduction ** (self.count - 1) > self.steps:
            raise UsageError(
                f"{self.count} rungs, each {self.reduction} times the last, do not fit into "
                f"{self.steps} steps; pass fewer --rungs or more --steps"
            )

    @property
    def unit(self) -> int:
        """Steps of the first rung, and between evaluations."""
        unit: int = self.steps // self.reduction ** (self.count - 1)
        return unit

    @property
    def marks(self) -> tuple[int, ...]:
        """Steps of each rung, ascending; the last is S."""
        lower = [self.unit * self.reduction**index for index in range(self.count - 1)]
        return (*lower, self.steps)

    def survivors(self, trials: int) -> tuple[int, ...]:
        """Return the number of trials at each rung, at least 1."""
        return tuple(max(1, trials // self.reduction**index) for index in range(self.count))

    def cost(self, trials: int) -> int:
        """Return the steps of ``trials`` trials at all rungs."""
        before = (0, *self.marks)
        return sum(
            number * (mark - last)
            for number, mark, last in zip(self.survivors(trials), self.marks, before, strict=False)
        )

    def affordable(self, budget: int, *, most: int) -> int:
        """Return the number of trials, up to ``most``, that ``budget`` steps pay for.

        Raises:
            UsageError: not even one.
        """
        if self.cost(1) > budget:
            raise UsageError(
                f"--budget is {budget:,} steps, and one trial takes {self.cost(1):,}; pass at "
                "least these, or fewer --steps"
            )
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.cost(middle) <= budget else (low, middle - 1)
        return low


def best(scores: Sequence[tuple[float, float]], count: int) -> list[int]:
    """Return the places of the ``count`` best scores, best first.

    Args:
        scores: accuracy, higher is better, and loss, lower is better, for equal accuracies; the
            first of equals wins.
        count: number of places.
    """
    order = sorted(range(len(scores)), key=lambda place: (-scores[place][0], scores[place][1]))
    return order[:count]
