"""Class-balanced order: every class as often as any other in an epoch.

Position p of an epoch is a slot of a permutation; slots are dealt to the classes in turn, and each
class deals its samples in permutations of its own that continue over epochs. So an epoch has as
many draws of each class, to within one, and over time all samples of a class are drawn as often, to
within one. The order remains a pure function of (seed, epoch, position).

Legend: B positions, n samples, C classes with samples.
"""

from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.stream.order import Order, sample_at

_SLOT_STREAM = 0x736C6F7473
_CLASS_STREAM = 0x62616C616E6365


class BalancedOrder(Order):
    """Order with as many draws of each class; an epoch has n draws.

    Takes 8 bytes of memory per sample for the rows of the latest epoch.

    Args:
        labels: int64 (n,), 0 or more.
        seed: seed of the run.
    """

    name = "balanced"

    def __init__(self, labels: npt.NDArray[np.integer], *, seed: int) -> None:
        self.num_samples = len(labels)
        self._seed = index(seed)
        ordered = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[ordered], prepend=-1))
        self._members = np.split(ordered.astype(np.int64), starts[1:])
        self._epoch: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    @override
    def settings(self) -> dict[str, Any]:
        """Return the seed and the number of classes."""
        return {"seed": self._seed, "classes": len(self._members)}

    @override
    def indices(self, positions: npt.NDArray[np.integer], epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of the split at ``positions`` (B,): int64 (B,)."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._rows(epoch)
        rows: npt.NDArray[np.int64] = self._epoch[1][positions]
        return rows

    def _rows(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of all positions of an epoch: int64 (n,)."""
        count, num_classes = self.num_samples, len(self._members)
        slots = sample_at(np.arange(count), count, seed=self._seed ^ _SLOT_STREAM, epoch=epoch)
        of_slot = np.empty(count, np.int64)
        for number, members in enumerate(self._members):
            draws = np.arange(len(range(number, count, num_classes)))
            of_slot[number::num_classes] = self._drawn(number, members, epoch * len(draws) + draws)
        return of_slot[slots]

    def _drawn(
        self, number: int, members: npt.NDArray[np.int64], draws: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the rows of some successive draws of a class."""
        rounds, places = np.divmod(draws, len(members))
        seed = self._seed ^ _CLASS_STREAM ^ (number + 1) << 20
        parts = [
            sample_at(places[rounds == one], len(members), seed=seed, epoch=one)
            for one in np.unique(rounds).tolist()
        ]
        return members[np.concatenate(parts)] if parts else draws
