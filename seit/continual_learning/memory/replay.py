"""A memory of exemplars whose budget is bytes: what tokens and pictures can be compared by.

Legend: m exemplars held, n samples offered, H W token grid, C classes.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.continual_learning.memory.exemplars import Arrivals, Exemplars, check_offer
from seit.continual_learning.memory.media import Ids, Medium
from seit.continual_learning.memory.policies import Bools, Ints, Policy, drawn
from seit.continual_learning.memory.selection import SHARED, Choice
from seit.errors import DamagedError, UsageError

_OFFERED = 256
"""Samples looked at together: what they take before a choice is made is bounded."""


class Memory:
    """Exemplars of a split within a budget of bytes, which no call ever leaves exceeded.

    An exemplar costs its payload, its label (2 bytes, 4 where C > 65,536) and its extras. Not
    counted: row numbers and ranks, which could be had again from the seed, and ``tokens``, ids that
    are decoded once when an exemplar comes in and kept as a cache.

    `Choice` tells the policies, of which all but ``herding`` take a stream by :meth:`add`.

    A row that is held already is left as it is. With shares, an exemplar above the share of its
    class is left out.

    Args:
        medium: what exemplars are stored as.
        budget_bytes: of all exemplars together.
        num_classes: C of the corpus.
        policy: which are kept.
        seed: of random priorities.
        extra_bytes: of what is kept besides with each exemplar, such as the logits of DER++.

    Raises:
        UsageError: there is no such policy, or the budget has no room for an exemplar of each class
            (of any, where the policy does without shares).
    """

    def __init__(
        self,
        medium: Medium,
        *,
        budget_bytes: int,
        num_classes: int,
        policy: Policy,
        seed: int,
        extra_bytes: int = 0,
    ) -> None:
        self._choice = Choice(policy, budget_bytes=budget_bytes, num_classes=num_classes, seed=seed)
        self.medium = medium
        self.budget_bytes = budget_bytes
        self.policy = policy
        self.seed = seed
        self._num_classes = num_classes
        self._label_size = 2 if num_classes <= 1 << 16 else 4
        self._extra_size = extra_bytes
        cost = (medium.fixed_bytes or 1) + self._label_size + extra_bytes
        needed = cost * (num_classes if policy in SHARED and medium.fixed_bytes else 1)
        if budget_bytes < needed:
            raise UsageError(
                f"the memory's budget is {budget_bytes:,} bytes; with {cost:,} an exemplar "
                f"({medium.name}) the policy {policy} needs {needed:,}: raise the budget"
            )
        self._exemplars = Exemplars(grid=medium.grid, dtype=medium.dtype)

    def __len__(self) -> int:
        return len(self._exemplars)

    @property
    def rows(self) -> Ints:
        """int64 (m,), rows of the split. As all columns a view, which the next change outdates."""
        return self._exemplars.rows

    @property
    def labels(self) -> Ints:
        """int64 (m,)."""
        return self._exemplars.labels

    @property
    def tokens(self) -> Ids:
        """Ids (m, H, W), int16 or int32: what the medium gives back of each exemplar."""
        return self._exemplars.ids

    @property
    def extras(self) -> Tensor | None:
        """What was kept besides (m, …), on the CPU; None where nothing was."""
        return self._exemplars.extras

    @property
    def num_bytes(self) -> int:
        """What all exemplars cost; at most ``budget_bytes``."""
        return int(self._exemplars.costs.sum())

    @property
    def payload_bytes(self) -> int:
        """Of payloads alone."""
        return self.num_bytes - self.label_bytes - self.extra_bytes

    @property
    def label_bytes(self) -> int:
        """Of labels alone."""
        return self._label_size * len(self)

    @property
    def extra_bytes(self) -> int:
        """Of extras alone."""
        return self._extra_size * len(self)

    def add(
        self,
        rows: npt.NDArray[np.integer],
        labels: npt.NDArray[np.integer],
        extras: Tensor | None = None,
    ) -> None:
        """Offer samples of the stream, in the order of their arrival.

        Only samples that may stay are encoded, and only those that do are decoded.

        Args:
            rows: int (n,) of the split.
            labels: int (n,), each 0 … C − 1.
            extras: (n, …) of the memory's extra bytes each, on any device.
        """
        if self.policy == "herding":
            raise UsageError("a memory by herding takes classes, not a stream: use replace_class")
        check_offer(rows, labels, extras, size=self._extra_size, num_classes=self._num_classes)
        for start in range(0, len(rows), _OFFERED):
            part = slice(start, start + _OFFERED)
            self._offer(
                np.asarray(rows[part], np.int64),
                np.asarray(labels[part], np.int64),
                None if extras is None else extras[part],
            )

    def replace_class(
        self, label: int, rows: npt.NDArray[np.integer], extras: Tensor | None = None
    ) -> None:
        """Give a class other exemplars, and each class met its new share of the bytes.

        Args:
            label: of the class.
            rows: int (n,) of the split, none twice, the most wanted first; the list is cut where
                the share is full.
            extras: (n, …) of the memory's extra bytes each, in the same order.
        """
        if self.policy != "herding":
            raise UsageError(f"a memory by {self.policy} takes a stream: use add")
        check_offer(
            rows,
            np.full(len(rows), label),
            extras,
            size=self._extra_size,
            num_classes=self._num_classes,
        )
        self._choice.seen[label] = True
        keep = self.labels != label
        payloads: list[bytes] = []
        room = self._choice.share
        for start in range(0, len(rows), _OFFERED):
            if room < 0:
                break
            part = self.medium.encode(np.asarray(rows[start : start + _OFFERED], np.int64))
            payloads += part
            room -= sum(map(self._cost, part))
        count = len(payloads)
        self._settle(
            self._arrivals(
                np.asarray(rows[:count], np.int64),
                np.full(count, label, np.int64),
                np.arange(count),
                payloads,
                None if extras is None else extras[:count],
            ),
            keep,
        )

    def draw(self, n: int, *, seed: int, step: int) -> Ints:
        """Indices int64 (n,) of exemplars for a batch, a function of (seed, step, m) alone.

        None comes twice unless n > m; then each comes ⌊n/m⌋ or ⌈n/m⌉ times. Of an empty memory
        there are none.
        """
        return drawn(n, len(self), seed=seed, step=step)

    def state(self) -> dict[str, Tensor]:
        """All that :meth:`restore` needs, as tensors for a checkpoint.

        It holds the cache of ids too: pictures tokenized in other portions could round otherwise.
        """
        return {
            **self._exemplars.state(),
            **self._choice.state(),
            "settings": torch.tensor(list(self._settings.encode()), dtype=torch.uint8),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where :meth:`state` was taken.

        Raises:
            UsageError: the memory was of another medium, policy, budget or seed.
            DamagedError: the tensors do not fit together.
        """
        try:
            kept = bytes(state["settings"].tolist()).decode()
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedError(
                "the memory is not what was saved; go on from another checkpoint"
            ) from error
        if kept != self._settings:
            raise UsageError(
                f"the memory was kept with {kept[:300]}, and this run has {self._settings}; go on "
                "with the settings of before"
            )
        exemplars = Exemplars(grid=self.medium.grid, dtype=self.medium.dtype)
        exemplars.restore(state)
        labels, cost = exemplars.labels, int(exemplars.costs.sum())
        are_labels = not labels.size or 0 <= labels.min() <= labels.max() < self._num_classes
        if not are_labels or cost > self.budget_bytes:
            raise DamagedError(
                f"the memory holds {cost:,} bytes of {self.budget_bytes:,}, or labels of no class; "
                "go on from another checkpoint"
            )
        self._choice.restore(state)
        self._exemplars = exemplars

    def describe(self) -> dict[str, Any]:
        """What a result file says of the memory."""
        return {
            "policy": self.policy,
            "medium": self.medium.describe(),
            "seed": self.seed,
            "budget_bytes": self.budget_bytes,
            "bytes": self.num_bytes,
            "payload_bytes": self.payload_bytes,
            "label_bytes": self.label_bytes,
            "extra_bytes": self.extra_bytes,
            "exemplars": len(self),
            "classes": len(np.unique(self.labels)),
            "classes_met": int(self._choice.seen.sum()),
        }

    @property
    def _settings(self) -> str:
        """What must be the same where a memory is restored."""
        settings = [self.medium.name, self.policy, self.seed, self.budget_bytes]
        return json.dumps([*settings, self._label_size, self._extra_size, self._num_classes])

    def _cost(self, payload: bytes) -> int:
        return len(payload) + self._label_size + self._extra_size

    def _offer(self, rows: Ints, labels: Ints, extras: Tensor | None) -> None:
        has_new_class = not self._choice.seen[labels].all()
        ranks = self._choice.ranks(rows)
        self._choice.meet(labels)
        _, firsts = np.unique(rows, return_index=True)
        held = self._exemplars.held
        fresh = [place for place in np.sort(firsts).tolist() if rows[place] not in held]
        places = np.array(fresh, dtype=np.int64)
        places = places[self._choice.may_stay(ranks[places], labels[places])]
        if len(places) or has_new_class:
            chosen = None if extras is None else extras[torch.from_numpy(places).to(extras.device)]
            payloads = self.medium.encode(rows[places])
            arrivals = self._arrivals(rows[places], labels[places], ranks[places], payloads, chosen)
            self._settle(arrivals, np.ones(len(self), dtype=bool))

    def _arrivals(
        self, rows: Ints, labels: Ints, ranks: Ints, payloads: list[bytes], extras: Tensor | None
    ) -> Arrivals:
        costs = np.array([self._cost(payload) for payload in payloads], dtype=np.int64)
        extras = None if extras is None else extras.detach().cpu()
        return Arrivals(
            rows=rows, labels=labels, ranks=ranks, costs=costs, payloads=payloads, extras=extras
        )

    def _settle(self, arrivals: Arrivals, keep: Bools) -> None:
        """Choose among the exemplars ``keep`` (m,) and arrivals, and hold what was chosen."""
        held, now = self._exemplars, np.flatnonzero(keep)
        chosen = self._choice.choose(
            np.concatenate([held.ranks[now], arrivals.ranks]),
            np.concatenate([held.labels[now], arrivals.labels]),
            np.concatenate([held.costs[now], arrivals.costs]),
            num_held=len(now),
        )
        stays = np.zeros(len(held), dtype=bool)
        stays[now] = chosen[: len(now)]
        incoming = arrivals.select(np.flatnonzero(chosen[len(now) :]))
        held.replace(stays, incoming, self.medium.decode(incoming.payloads))
