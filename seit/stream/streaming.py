"""The streaming loader: a bounded window of a split that does not fit into memory.

Blocks are read ahead by threads from a disk or an object store, in the order `window`, of which
they are two windows at most: the one that batches are taken from, and the next. What is held is
O(blocks) for the order and two windows of packed samples, whatever the size of the split.

Legend: b samples of a batch, H W grid, n samples of a window, S bytes per packed sample.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import DamagedError
from seit.shards import Split
from seit.shards.frames import Kind
from seit.stream.batches import Loader, Rank, Samples
from seit.stream.order import WindowOrder
from seit.stream.unpack import unpack_rows

_MAX_THREADS = 16


@dataclass(frozen=True)
class _BlockData:
    """A block's columns but its tokens: int64 (n,), n keys, and n rows of the split."""

    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Coming:
    """A window that threads read: its packed samples uint8 (n, S), and each block's rest."""

    packed: npt.NDArray[np.uint8]
    blocks: "list[Future[_BlockData]]"


class _Window:
    """The samples of a window, in the order in which the order counts them.

    Of a damaged block there is nothing but its room in ``packed``, which no place leads to.
    """

    def __init__(
        self,
        packed: npt.NDArray[np.uint8],
        blocks: list[_BlockData | DamagedError],
        sizes: list[int],
    ) -> None:
        whole = np.repeat([isinstance(block, _BlockData) for block in blocks], sizes)
        intact = np.flatnonzero(whole)
        if not len(intact):
            raise next(error for error in blocks if isinstance(error, DamagedError))
        good = [block for block in blocks if isinstance(block, _BlockData)]
        self.packed = packed
        self.labels = np.concatenate([block.labels for block in good])
        self.rows = np.concatenate([block.rows for block in good])
        self.keys = list(chain.from_iterable(block.keys for block in good))
        self.numbers = _numbers_of_intact(whole)
        self.packed_rows = intact
        self.num_damaged = len(whole) - len(intact)


class StreamingLoader(Loader):
    """Batches of ids (b, H, W) in the order `window`; see :func:`seit.stream.loader`.

    The batches are those of a resident loader in the same order. In a store that was opened with
    ``on_damage="skip"`` the places of a damaged block's samples are taken by the next intact ones
    of its window, so that batches keep their size; ``skipped_samples`` counts them. Otherwise
    damage is an error when its batch is due. Every rank reads all blocks, of which it uses its
    part of each batch.

    Args:
        split: of a store.
        batch_size: of the global batch.
        seed: of the order.
        device: where batches are wanted.
        window_blocks: blocks that are shuffled together.
        shuffle: False for the stored order.
        rank: which part of each batch is wanted.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        device: str | torch.device,
        window_blocks: int,
        shuffle: bool = True,
        rank: Rank | None = None,
    ) -> None:
        self._windows = WindowOrder(
            split.block_sizes, seed=seed, window_blocks=window_blocks, shuffles=shuffle
        )
        super().__init__(self._windows, batch_size=batch_size, device=device, rank=rank)
        self._split = split
        self._skips_damage = split.store.skips_damage
        self._pool: ThreadPoolExecutor | None = None
        self._open: dict[tuple[int, int], _Window] = {}
        self._coming: dict[tuple[int, int], _Coming] = {}
        self._spare: list[npt.NDArray[np.uint8]] = []
        self.skipped_samples = 0
        """Places of damaged blocks' samples that others have taken so far."""

    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """The samples at ``positions`` (b,) of an epoch, on the device."""
        windows, places = self._windows.place(positions, epoch)
        numbers = np.unique(windows).tolist()
        if len(numbers) == 1:
            samples = self._samples(self._window(epoch, numbers[0]), places)
        else:
            chosen = [np.flatnonzero(windows == number) for number in numbers]
            parts = [
                self._samples(self._window(epoch, number), places[slots])
                for number, slots in zip(numbers, chosen, strict=True)
            ]
            samples = _join(parts, np.argsort(np.concatenate(chosen)))
        self._forget(epoch, numbers[0])
        return samples._replace(
            tokens=samples.tokens.view(-1, *self._split.grid).to(self.device, non_blocking=True),
            labels=samples.labels.to(self.device, non_blocking=True),
        )

    def _samples(self, window: _Window, places: npt.NDArray[np.int64]) -> Samples:
        """Samples of one window, on the host; tokens are (b, L)."""
        layout = self._split.layout
        numbers, keys = window.numbers[places], window.keys
        return Samples(
            tokens=unpack_rows(
                torch.from_numpy(window.packed),
                window.packed_rows[numbers],
                length=layout.length,
                num_codes=layout.num_codes,
            ),
            labels=torch.from_numpy(window.labels[numbers]),
            indices=window.rows[numbers],
            find_keys=lambda: [keys[number] for number in numbers.tolist()],
        )

    def close(self) -> None:
        """Stop reading ahead and forget what was read; the loader can be used again."""
        for coming in self._coming.values():
            for future in coming.blocks:
                future.cancel()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._open.clear()
        self._coming.clear()
        self._spare.clear()

    def _window(self, epoch: int, number: int) -> _Window:
        """A window, read if it was not, while the one after it is ordered."""
        if (epoch, number) not in self._open:
            self._order(epoch, number)
            coming = self._coming.pop((epoch, number))
            self._order(*self._after(epoch, number))
            blocks = [self._result(future) for future in coming.blocks]
            sizes = self._split.block_sizes[self._windows.blocks_of(number, epoch)]
            window = _Window(coming.packed, blocks, sizes.tolist())
            self.skipped_samples += window.num_damaged
            self._open[epoch, number] = window
        return self._open[epoch, number]

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number + 1) if number + 1 < self._windows.num_windows else (epoch + 1, 0)

    def _forget(self, epoch: int, number: int) -> None:
        """Drop the windows that lie behind the batch just made."""
        for key in [key for key in self._open if key < (epoch, number)]:
            self._spare.append(self._open.pop(key).packed)
        wanted = {(epoch, number), self._after(epoch, number)}
        wanted.add(self._after(*self._after(epoch, number)))
        for key in [key for key in self._coming if key not in wanted]:
            for future in self._coming.pop(key).blocks:
                future.cancel()

    def _order(self, epoch: int, number: int) -> None:
        """Have threads read a window's blocks."""
        if (epoch, number) in self._coming or (epoch, number) in self._open:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS))
        pool = self._pool
        blocks = self._windows.blocks_of(number, epoch)
        starts = np.cumsum(self._split.block_sizes[blocks])
        packed = self._take_buffer(int(starts[-1]))
        rooms = np.split(packed, starts[:-1])
        futures = [
            pool.submit(self._read, block, room)
            for block, room in zip(blocks.tolist(), rooms, strict=True)
        ]
        self._coming[epoch, number] = _Coming(packed, futures)

    def _take_buffer(self, num_samples: int) -> npt.NDArray[np.uint8]:
        """Room for a window, uint8 (n, S): that of one used up, whose pages are there already."""
        while self._spare:
            buffer = self._spare.pop()
            whole = buffer if buffer.base is None else buffer.base
            if len(whole) >= num_samples:
                return whole[:num_samples]
        return np.empty((num_samples, self._split.layout.sample_bytes), dtype=np.uint8)

    def _read(self, number: int, room: npt.NDArray[np.uint8]) -> _BlockData:
        """Read a block: its packed samples into ``room`` (n, S)."""
        shard, block = self._split.block_at(number)
        rows = shard.rows_of(block)
        labels = shard.open_block(block, Kind.LABELS).astype(np.int64)
        low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
        if low < -1 or (high >= len(self._split.classes) and high > 0):
            raise DamagedError(
                f"{shard.record.file}, block {block}: labels from {low} to {high} for "
                f"{len(self._split.classes)} classes; `seit verify` lists all damage"
            )
        room[:] = shard.open_packed(block)
        return _BlockData(
            labels=labels,
            keys=shard.open_block(block, Kind.KEYS),
            rows=np.arange(rows.start, rows.stop, dtype=np.int64),
        )

    def _result(self, future: "Future[_BlockData]") -> _BlockData | DamagedError:
        try:
            return future.result()
        except DamagedError as error:
            if not self._skips_damage:
                raise
            return error


def _numbers_of_intact(whole: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Place in the window → number among its intact samples; of the next ones where damaged."""
    before: npt.NDArray[np.int64] = np.cumsum(whole) - whole
    edges = np.flatnonzero(np.diff(whole, prepend=True))
    starts = np.zeros(len(whole), dtype=np.int64)
    starts[edges] = edges
    since = np.arange(len(whole)) - np.maximum.accumulate(starts)
    numbers: npt.NDArray[np.int64] = np.where(whole, before, (before + since) % whole.sum())
    return numbers


def _join(parts: list[Samples], back: npt.NDArray[np.int64]) -> Samples:
    """The samples of several windows, in the order of the batch."""
    rows = torch.from_numpy(back)

    def find_keys() -> list[str]:
        keys = list(chain.from_iterable(part.find_keys() for part in parts))
        return [keys[row] for row in back.tolist()]

    return Samples(
        tokens=torch.cat([part.tokens for part in parts]).index_select(0, rows),
        labels=torch.cat([part.labels for part in parts]).index_select(0, rows),
        indices=np.concatenate([part.indices for part in parts])[back],
        find_keys=find_keys,
    )
