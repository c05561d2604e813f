"""What a memory remembers of its stream to choose by, and the choice.

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
"""Policies that give each class met an equal share of the budget."""


class Choice:
    """Which exemplars stay.

    The policies:

    ``reservoir``
        A uniform sample of all that was offered, by random priorities of (seed, row): in whatever
        order and portions they come, the same exemplars are left.
    ``balanced``
        The same for each class by itself, within an equal share of the bytes for each class met.
    ``greedy``
        GDumb's sampler, which keeps classes balanced and the budget filled.
    ``ring``
        The latest of each class, within the same shares.
    ``herding``
        `Memory.replace_class` says which exemplars of a class, the most wanted first; later classes
        cut the list.

    Args:
        policy: which stay.
        budget_bytes: of all exemplars together.
        num_classes: C.
        seed: of random priorities.

    Attributes:
        seen: bool (C,), classes met.

    Raises:
        UsageError: there is no such policy.
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
        """Bytes that a class may have."""
        if self.policy not in SHARED:
            return self.budget_bytes
        return self.budget_bytes // max(1, int(self.seen.sum()))

    def ranks(self, rows: Ints) -> Ints:
        """Ranks int64 (n,) of rows (n,) that arrive now; lower ones are kept longer."""
        if self.policy != "ring":
            return priorities(rows, seed=self.seed)
        # The later, the lower.
        ranks: Ints = (1 << 62) - self._arrivals - np.arange(len(rows))
        self._arrivals += len(rows)
        return ranks

    def meet(self, labels: Ints) -> None:
        """Note the classes of samples that are offered; the greedy policy does so one by one."""
        if self.policy != "greedy":
            self.seen[labels] = True

    def may_stay(self, ranks: Ints, labels: Ints) -> Bools:
        """Which of the samples offered (n,) are worth being encoded."""
        could: Bools = ranks < self._limits[labels]
        return could

    def choose(self, ranks: Ints, labels: Ints, costs: Ints, *, num_held: int) -> Bools:
        """Which exemplars (m,) stay, the first ``num_held`` of which are held already."""
        if self.policy == "greedy":
            return greedily_balanced(
                ranks, labels, costs, num_held=num_held, budget=self.budget_bytes, seen=self.seen
            )
        fits = costs <= self.share
        keep = fits.copy()
        if self.policy == "reservoir":
            keep[fits] = within_budget(ranks[fits], costs[fits], budget=self.budget_bytes)
        else:
            keep[fits] = within_shares(ranks[fits], labels[fits], costs[fits], share=self.share)
        out = fits & ~keep
        # What once had no room never has, as more only come in: so that the order says nothing.
        if self.policy == "reservoir" and out.any():
            self._limits = np.minimum(self._limits, ranks[out].min())
        elif self.policy == "balanced":
            np.minimum.at(self._limits, labels[out], ranks[out])
        return keep

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs."""
        return {
            "seen": torch.from_numpy(self.seen.copy()),
            "limits": torch.from_numpy(self._limits.copy()),
            "arrivals": torch.tensor([self._arrivals]),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where :meth:`state` was taken.

        Raises:
            DamagedError: the tensors are missing or of another memory.
        """
        try:
            seen, limits = state["seen"].cpu().numpy(), state["limits"].cpu().numpy()
            arrivals = int(state["arrivals"].item())
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DamagedError(
                "the memory is not what was saved; go on from another checkpoint"
            ) from error
        if not seen.shape == limits.shape == self.seen.shape or seen.dtype != np.bool_:
            raise DamagedError(
                f"the memory knows {seen.shape} classes of {self.seen.shape}; go on from another "
                "checkpoint"
            )
        self.seen, self._limits, self._arrivals = seen.copy(), limits.astype(np.int64), arrivals
