"""Class-balanced order by windows of blocks, for splits that are streamed.

Each class gets as many draws in an epoch, to within one. They are shared out to the windows in
proportion to the class's samples there, so a window has more positions than samples if its classes
are rare, and fewer if they are frequent. Inside a window each class deals its samples in turn. The
order is a pure function of (seed, epoch, position), and needs one window at a time.

Legend: B positions, n samples of the split, C classes with samples, W windows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.stream.order import WindowOrder, sample_at

_PLACE_STREAM = 0x706C61636573
_CLASS_STREAM = 0x6465616C
_KEPT = 3
"""Windows whose draws are kept: those of a batch, and the next that is read ahead."""
Integers = npt.NDArray[np.int64]


class BalancedWindowOrder(WindowOrder):
    """Order `window` with as many draws of each class; an epoch has n draws.

    Takes 8 bytes of memory per sample of the split for the classes.

    Args:
        labels: int (n,), 0 or more, in the split's order.
        block_sizes: int (blocks,), samples of each block.
        seed: seed of the run.
        window_blocks: blocks per window.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.integer],
        block_sizes: npt.NDArray[np.integer],
        *,
        seed: int,
        window_blocks: int,
    ) -> None:
        super().__init__(block_sizes, seed=seed, window_blocks=window_blocks)
        self.name = "balanced-window"
        classes, numbers = np.unique(labels, return_inverse=True)
        self._labels: Integers = numbers.astype(np.int64)
        self._num_classes = len(classes)
        self._plan_of: tuple[int, Integers, Integers] | None = None
        self._drawn: dict[tuple[int, int], Integers] = {}

    @property
    @override
    def settings(self) -> dict[str, Any]:
        """Return the seed, the window and the number of classes."""
        return {**super().settings, "classes": self._num_classes}

    @override
    def place(
        self, positions: npt.NDArray[np.integer], epoch: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the window of each of ``positions`` (B,), and its place in that window."""
        _, bounds = self._plan(epoch)
        windows = np.searchsorted(bounds, positions, side="right") - 1
        places = np.empty(len(windows), dtype=np.int64)
        for window in np.unique(windows).tolist():
            chosen = windows == window
            places[chosen] = self._places(window, epoch)[positions[chosen] - bounds[window]]
        return windows, places

    @override
    def positions_of(self, window: int, epoch: int) -> range:
        """Return the positions of an epoch that lie in a window."""
        _, bounds = self._plan(epoch)
        return range(int(bounds[window]), int(bounds[window + 1]))

    def _plan(self, epoch: int) -> tuple[Integers, Integers]:
        """Return the draws of each class in each window (C, W), and the bounds (W + 1,)."""
        if self._plan_of is None or self._plan_of[0] != epoch:
            blocks, _ = self._permuted(epoch)
            window_of = np.empty(len(blocks), dtype=np.int64)
            window_of[blocks] = np.arange(len(blocks)) // self.window_blocks
            cells = self._labels * self.num_windows + np.repeat(window_of, self._sizes)
            shape = (self._num_classes, self.num_windows)
            counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
            upto = counts.cumsum(axis=1)
            quotas = np.diff(np.arange(shape[0] + 1) * self.num_samples // shape[0])[:, None]
            draws = np.diff(quotas * upto // upto[:, -1:], axis=1, prepend=0)
            bounds = np.concatenate([[0], draws.sum(axis=0).cumsum()])
            self._plan_of = epoch, draws, bounds
        return self._plan_of[1], self._plan_of[2]

    def _places(self, window: int, epoch: int) -> Integers:
        """Return the places in a window of all its positions, in order."""
        if (epoch, window) not in self._drawn:
            while len(self._drawn) >= _KEPT:
                del self._drawn[min(self._drawn)]
            self._drawn[epoch, window] = self._draw(window, epoch)
        return self._drawn[epoch, window]

    def _draw(self, window: int, epoch: int) -> Integers:
        draws, _ = self._plan(epoch)
        blocks = self.blocks_of(window, epoch)
        starts, sizes = self._firsts[blocks], self._sizes[blocks]
        inside = np.repeat(starts - (sizes.cumsum() - sizes), sizes)
        labels = self._labels[inside + np.arange(len(inside))]
        ordered = np.argsort(labels, kind="stable").astype(np.int64)
        firsts = np.flatnonzero(np.diff(labels[ordered], prepend=-1))
        parts = [
            self._deal(members, int(draws[label, window]), label=label, epoch=epoch)
            for members in np.split(ordered, firsts[1:])
            for label in (int(labels[members[0]]),)
        ]
        found = np.concatenate(parts)
        if not len(found):
            return found
        seed = self._seed ^ _PLACE_STREAM ^ (window + 1) << 24
        return found[sample_at(np.arange(len(found)), len(found), seed=seed, epoch=epoch)]

    def _deal(self, members: Integers, count: int, *, label: int, epoch: int) -> Integers:
        """Return ``count`` places of a class, each of ``members`` as often, to within one."""
        rounds, turns = np.divmod(np.arange(count), len(members))
        parts = []
        for number in np.unique(rounds).tolist():
            seed = self._seed ^ _CLASS_STREAM ^ (label + 1) << 24 ^ number << 44
            places = turns[rounds == number]
            parts.append(members[sample_at(places, len(members), seed=seed, epoch=epoch)])
        return np.concatenate(parts) if parts else members[:0]
