"""Table of the exemplars in a memory: payloads and columns, in reused slots.

Legend: m exemplars held, k that come in, H W token grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.continual_learning.memory.media import Ids
from seit.continual_learning.memory.policies import Bools, Ints
from seit.errors import DamagedError, UsageError

_ROWS, _LABELS, _RANKS, _COSTS = range(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrivals:
    """Exemplars that enter the memory together.

    Attributes:
        rows: int64 (k,).
        labels: int64 (k,).
        ranks: int64 (k,), lower ones kept longer.
        costs: int64 (k,), total bytes counted for each.
        payloads: k payloads.
        extras: (k, …), other data kept with each.
    """

    rows: Ints
    labels: Ints
    ranks: Ints
    costs: Ints
    payloads: list[bytes]
    extras: Tensor | None

    def select(self, places: npt.NDArray[np.integer]) -> "Arrivals":
        """Return a subset."""
        extras = None if self.extras is None else self.extras[torch.from_numpy(places)]
        return Arrivals(
            rows=self.rows[places],
            labels=self.labels[places],
            ranks=self.ranks[places],
            costs=self.costs[places],
            payloads=[self.payloads[place] for place in places.tolist()],
            extras=extras,
        )


class Exemplars:
    """Table of exemplars; a new exemplar reuses the slot of a removed one.

    A change of a few exemplars moves only those. Columns are views of the first m slots, valid
    until the next change.

    Args:
        grid: H, W.
        dtype: dtype of the ids.
    """

    def __init__(self, *, grid: tuple[int, int], dtype: npt.DTypeLike) -> None:
        self.payloads: list[bytes] = []
        self.held: set[int] = set()
        self._columns = np.empty((4, 0), dtype=np.int64)
        self._ids = np.empty((0, *grid), dtype=dtype)
        self._extras: Tensor | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def rows(self) -> Ints:
        """Rows of the split, int64 (m,)."""
        return self._column(_ROWS)

    @property
    def labels(self) -> Ints:
        """Labels, int64 (m,)."""
        return self._column(_LABELS)

    @property
    def ranks(self) -> Ints:
        """Ranks, int64 (m,)."""
        return self._column(_RANKS)

    @property
    def costs(self) -> Ints:
        """Costs in bytes, int64 (m,)."""
        return self._column(_COSTS)

    @property
    def ids(self) -> Ids:
        """Token ids (m, H, W)."""
        return self._ids[: len(self)]

    @property
    def extras(self) -> Tensor | None:
        """Extras (m, …), None if there never were any."""
        return None if self._extras is None else self._extras[: len(self)]

    def replace(self, keep: Bools, arrivals: Arrivals, ids: Ids) -> None:
        """Keep only the exemplars ``keep`` (m,) and add k arrivals with their ids (k, H, W)."""
        before, k = len(self), len(arrivals.payloads)
        holes = np.flatnonzero(~keep)
        self.held.difference_update(self.rows[holes].tolist())
        self.held.update(arrivals.rows.tolist())
        after = before - len(holes) + k
        self._reserve(max(before, after), arrivals.extras)
        self.payloads += [b""] * (after - before)
        # Fill holes first, then append; close remaining holes with exemplars from the end.
        targets = np.concatenate([holes[:k], np.arange(before, after)])[:k]
        left = holes[k:]
        sources = np.flatnonzero(keep[after:]) + after
        left = left[left < after]
        self._columns[:, left] = self._columns[:, sources]
        self._ids[left] = self._ids[sources]
        for target, source in zip(left.tolist(), sources.tolist(), strict=True):
            self.payloads[target] = self.payloads[source]
        self._columns[:, targets] = (arrivals.rows, arrivals.labels, arrivals.ranks, arrivals.costs)
        self._ids[targets] = ids
        for target, payload in zip(targets.tolist(), arrivals.payloads, strict=True):
            self.payloads[target] = payload
        if self._extras is not None:
            self._extras[torch.from_numpy(left)] = self._extras[torch.from_numpy(sources)]
            if arrivals.extras is not None:
                self._extras[torch.from_numpy(targets)] = arrivals.extras.cpu()
        del self.payloads[after:]

    def state(self) -> dict[str, Tensor]:
        """Return all state as tensors, with concatenated payloads and their offsets."""
        sizes = [len(payload) for payload in self.payloads]
        whole = np.frombuffer(bytearray(b"".join(self.payloads)), np.uint8)
        state = {
            "payloads": torch.from_numpy(whole),
            "offsets": torch.from_numpy(np.cumsum([0, *sizes], dtype=np.int64)),
            "columns": torch.from_numpy(self._columns[:, : len(self)].copy()),
            "ids": torch.from_numpy(self.ids.copy()),
        }
        extras = self.extras
        return state if extras is None else {**state, "extras": extras.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the exemplars of :meth:`state`; raise DamagedError if they are inconsistent."""
        offsets = self._wanted(state, "offsets", torch.int64, (None,)).numpy()
        m = len(offsets) - 1
        whole = self._wanted(state, "payloads", torch.uint8, (None,)).numpy()
        columns = self._wanted(state, "columns", torch.int64, (4, m)).numpy()
        kind = torch.from_numpy(self._ids[:0]).dtype
        ids = self._wanted(state, "ids", kind, (m, *self._ids.shape[1:])).numpy()
        extras = state.get("extras")
        sizes = np.diff(offsets)
        ends_fit = m >= 0 and offsets[0] == 0 and offsets[-1] == len(whole)
        if not ends_fit or (sizes < 0).any() or (columns[_COSTS] < sizes).any():
            raise DamagedError("the memory's payloads do not fit their offsets; use an older save")
        if extras is not None and len(extras) != m:
            raise DamagedError(f"the memory holds {len(extras)} extras of {m} exemplars")
        data = whole.tobytes()
        bounds = offsets.tolist()
        self.payloads = [data[bounds[at] : bounds[at + 1]] for at in range(m)]
        self._columns, self._ids = columns.copy(), ids.copy()
        self._extras = None if extras is None else extras.cpu().clone()
        self.held = set(self.rows.tolist())

    def _wanted(
        self, state: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[Any, ...]
    ) -> Tensor:
        found = state.get(name)
        fits = found is not None and found.dtype == dtype and found.ndim == len(shape)
        if (
            found is None
            or not fits
            or any(want not in (None, size) for size, want in zip(found.shape, shape, strict=True))
        ):
            raise DamagedError(
                f"the memory's {name} are not {dtype} {shape}; resume from another checkpoint"
            )
        return found.cpu()

    def _column(self, number: int) -> Ints:
        return self._columns[number, : len(self)]

    def _reserve(self, count: int, extras: Tensor | None) -> None:
        """Make room for ``count``, at least doubling the capacity."""
        have = self._columns.shape[1]
        if self._extras is None and extras is not None:
            self._extras = torch.zeros(have, *extras.shape[1:], dtype=extras.dtype)
        if count <= have:
            return
        more = max(count, 2 * have) - have
        self._columns = np.pad(self._columns, ((0, 0), (0, more)))
        self._ids = np.concatenate(
            [self._ids, np.zeros((more, *self._ids.shape[1:]), self._ids.dtype)]
        )
        if self._extras is not None:
            room = torch.zeros(more, *self._extras.shape[1:], dtype=self._extras.dtype)
            self._extras = torch.cat([self._extras, room])


def check_offer(
    rows: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    extras: Tensor | None,
    *,
    size: int,
    num_classes: int,
) -> None:
    """Raise UsageError unless samples (n,) have labels, and extras (n, …) of ``size`` bytes."""
    found = 0
    if extras is not None and len(extras):
        found = extras[0].numel() * extras.element_size()
    if found != size and len(rows):
        raise UsageError(f"extras take {found} bytes per sample; the memory expects {size}")
    assert len(labels) == len(rows), "a label each"
    assert extras is None or len(extras) == len(rows), "extras of each"
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UsageError(
            f"labels go from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}: "
            "samples without a label cannot be remembered"
        )
