"""Selection of exemplars, and the state that it depends on.

Legend: m exemplars, n samples offered, C classes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from seit.continual_learning.memory.policies import (
    LAST_RANK,
    Bools,
    Ints,
    Policy,
    greedily_balanced,
    priorities,
    within_budget,
    within_shares,
)
from seit.errors import DamagedError, UsageError

POLICIES: tuple[Policy, ...] = ("reservoir", "balanced", "greedy", "herding", "ring")
SHARED = ("balanced", "herding", "ring")
"""Policies that give each class seen an equal share of the budget."""


class Choice:
    """Selection of the exemplars that stay.

    The policies:

    ``reservoir``
        Uniform sample of everything offered, by random priorities of (seed, row): independent of
        order and batching.
    ``balanced``
        The same within each class, with an equal share of the bytes per class seen.
    ``greedy``
        GDumb's sampler, which keeps classes balanced and the budget filled.
    ``ring``
        The latest exemplars of each class, within the same shares.
    ``herding``
        `Memory.replace_class` sets the exemplars of a class, most important first; later classes
        shorten the list.

    Args:
        policy: name of the policy.
        budget_bytes: budget of all exemplars together.
        num_classes: C, of the corpus: as many as may be met.
        seed: seed of random priorities.

    Attributes:
        seen: bool (C,), classes seen.

    Raises:
        UsageError: the policy does not exist.
    """

    def __init__(self, policy: Policy, *, budget_bytes: int, num_classes: int, seed: int) -> None:
        if policy not in POLICIES:
            raise UsageError(
                f"there is no policy {policy!r}; expected one of {', '.join(POLICIES)}"
            )
        self.policy = policy
        self.budget_bytes = budget_bytes
        self.seed = seed
        self.seen = np.zeros(num_classes, dtype=bool)
        self._limits = np.full(num_classes, LAST_RANK, dtype=np.int64)
        self._arrivals = 0

    @property
    def share(self) -> int:
        """Bytes available to each class."""
        if self.policy not in SHARED:
            return self.budget_bytes
        return self.budget_bytes // max(1, int(self.seen.sum()))

    @property
    def largest(self) -> int:
        """Bytes of the largest exemplar that is taken: the share once all classes are seen.

        A larger one would be dropped by then, and those that it had displaced would be gone.
        """
        return self.budget_bytes // len(self.seen) if self.policy in SHARED else self.budget_bytes

    def ranks(self, rows: Ints) -> Ints:
        """Return ranks int64 (n,) of arriving rows (n,); lower ones are kept longer."""
        if self.policy != "ring":
            return priorities(rows, seed=self.seed)
        # Later arrivals get lower ranks.
        ranks: Ints = (1 << 62) - self._arrivals - np.arange(len(rows))
        self._arrivals += len(rows)
        return ranks

    def meet(self, labels: Ints) -> None:
        """Mark the classes of offered samples as seen; the greedy policy does so one by one."""
        if self.policy != "greedy":
            self.seen[labels] = True

    def may_stay(self, ranks: Ints, labels: Ints) -> Bools:
        """Return which of the samples offered (n,) are worth encoding."""
        could: Bools = ranks < self._limits[labels]
        return could

    def choose(self, ranks: Ints, labels: Ints, costs: Ints, *, num_held: int) -> Bools:
        """Return which exemplars (m,) stay; the first ``num_held`` are already held."""
        if self.policy == "greedy":
            return greedily_balanced(
                ranks, labels, costs, num_held=num_held, budget=self.budget_bytes, seen=self.seen
            )
        fits = costs <= self.largest
        keep = fits.copy()
        if self.policy == "reservoir":
            keep[fits] = within_budget(ranks[fits], costs[fits], budget=self.budget_bytes)
        else:
            keep[fits] = within_shares(ranks[fits], labels[fits], costs[fits], share=self.share)
        out = fits & ~keep
        # Room only shrinks, and what is taken fits the last share alone. So a rank that did not
        # fit never will: order has no influence.
        if self.policy == "reservoir" and out.any():
            self._limits = np.minimum(self._limits, ranks[out].min())
        elif self.policy == "balanced":
            np.minimum.at(self._limits, labels[out], ranks[out])
        return keep

    def state(self) -> dict[str, Tensor]:
        """Return the state for :meth:`restore`."""
        return {
            "seen": torch.from_numpy(self.seen.copy()),
            "limits": torch.from_numpy(self._limits.copy()),
            "arrivals": torch.tensor([self._arrivals]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of :meth:`state`; raise DamagedError if it is inconsistent."""
        try:
            seen, limits = state["seen"].cpu().numpy(), state["limits"].cpu().numpy()
            arrivals = int(state["arrivals"].item())
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DamagedError("the memory is damaged; resume from another checkpoint") from error
        if not seen.shape == limits.shape == self.seen.shape or seen.dtype != np.bool_:
            raise DamagedError(
                f"the memory knows {seen.shape} classes of {self.seen.shape}; resume from "
                "another checkpoint"
            )
        self.seen, self._limits, self._arrivals = seen.copy(), limits.astype(np.int64), arrivals
