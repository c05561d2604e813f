"""Memory of exemplars with a budget in bytes, comparable between tokens and pictures.

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
"""Samples processed at a time, which bounds the space before selection."""


class Memory:
    """Exemplars of a split within a budget of bytes, which is never exceeded.

    An exemplar costs its payload, its label (2 bytes, 4 if C > 65,536) and its extras. Not counted:
    row numbers and ranks, which could be derived from the seed, and ``tokens``, a cache of ids
    decoded once per exemplar.

    See `Choice` for the policies; all but ``herding`` take a stream by :meth:`add`.

    A row that is already held is left unchanged. With shares, an exemplar larger than the share of
    a class once all C are seen is not taken.

    Args:
        medium: storage format of exemplars.
        budget_bytes: budget of all exemplars together.
        num_classes: C of the corpus.
        policy: selection of exemplars.
        seed: seed of random priorities.
        extra_bytes: size of other data kept per exemplar, e.g. the logits of DER++.

    Raises:
        UsageError: the policy does not exist, or the budget has no room for one exemplar per class
            (or for any, if the policy has no shares).
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
        """Rows of the split, int64 (m,); a view, like all columns, valid until the next change."""
        return self._exemplars.rows

    @property
    def labels(self) -> Ints:
        """Labels, int64 (m,)."""
        return self._exemplars.labels

    @property
    def tokens(self) -> Ids:
        """Ids (m, H, W), int16 or int32, as decoded by the medium."""
        return self._exemplars.ids

    @property
    def extras(self) -> Tensor | None:
        """Extras (m, …) on the CPU, None without any."""
        return self._exemplars.extras

    @property
    def num_bytes(self) -> int:
        """Total bytes of the exemplars; at most ``budget_bytes``."""
        return int(self._exemplars.costs.sum())

    @property
    def lacking(self) -> Ints:
        """Classes that were met and have no exemplar, int64 (n,), ascending."""
        return np.setdiff1d(np.flatnonzero(self._choice.seen), self.labels)

    @property
    def payload_bytes(self) -> int:
        """Bytes of payloads alone."""
        return self.num_bytes - self.label_bytes - self.extra_bytes

    @property
    def label_bytes(self) -> int:
        """Bytes of labels alone."""
        return self._label_size * len(self)

    @property
    def extra_bytes(self) -> int:
        """Bytes of extras alone."""
        return self._extra_size * len(self)

    def add(
        self,
        rows: npt.NDArray[np.integer],
        labels: npt.NDArray[np.integer],
        extras: Tensor | None = None,
    ) -> None:
        """Offer samples of the stream, in order of arrival.

        Only samples that may stay are encoded, and only those that do stay are decoded.

        Args:
            rows: int (n,) of the split.
            labels: int (n,), each 0 … C − 1.
            extras: (n, …) of the memory's extra bytes each, on any device.
        """
        if self.policy == "herding":
            raise UsageError("a herding memory takes classes, not a stream: use replace_class")
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
        """Replace the exemplars of a class, and give each class seen its new share of the bytes.

        Args:
            label: label of the class.
            rows: int (n,) of the split, unique, most important first; cut to the share.
            extras: (n, …) of the memory's extra bytes each, in the same order.
        """
        if self.policy != "herding":
            raise UsageError(f"a {self.policy} memory takes a stream: use add")
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
            costs = map(self._cost, part)
            room -= sum(cost for cost in costs if cost <= self._choice.largest)
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
        """Draw indices int64 (n,) of exemplars for a batch, a function of (seed, step, m) alone.

        None occurs twice unless n > m; then each occurs ⌊n/m⌋ or ⌈n/m⌉ times. Empty without any.
        """
        return drawn(n, len(self), seed=seed, step=step)

    def state(self) -> dict[str, Tensor]:
        """Return the state for :meth:`restore`, as tensors of a checkpoint.

        Includes the cache of ids: pictures tokenized in other batches could round differently.
        """
        return {
            **self._exemplars.state(),
            **self._choice.state(),
            "settings": torch.tensor(list(self._settings.encode()), dtype=torch.uint8),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of :meth:`state`.

        Raises:
            UsageError: the state has another medium, policy, budget or seed.
            DamagedError: the tensors are inconsistent.
        """
        try:
            kept = bytes(state["settings"].tolist()).decode()
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedError("the memory is damaged; resume from another checkpoint") from error
        if kept != self._settings:
            raise UsageError(
                f"the memory was kept with {kept[:300]}, and this run has {self._settings}; "
                "resume with the earlier settings"
            )
        exemplars = Exemplars(grid=self.medium.grid, dtype=self.medium.dtype)
        exemplars.restore(state)
        labels, cost = exemplars.labels, int(exemplars.costs.sum())
        are_labels = not labels.size or 0 <= labels.min() <= labels.max() < self._num_classes
        if not are_labels or cost > self.budget_bytes:
            raise DamagedError(
                f"the memory holds {cost:,} bytes of {self.budget_bytes:,}, or labels of no class; "
                "resume from another checkpoint"
            )
        self._choice.restore(state)
        self._exemplars = exemplars

    def describe(self) -> dict[str, Any]:
        """Return the memory's entry of a result file."""
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
        """Return the settings that must match on restore."""
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
        """Select from the exemplars ``keep`` (m,) and arrivals, and store the selection."""
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
