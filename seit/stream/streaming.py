"""The streaming loader: a bounded window of a split that does not fit into memory.

Blocks are read ahead by threads from a disk or an object store, in the order `window`, of which
they are two windows at most: the one that batches are taken from, and the next. What is held is
O(blocks) for the order and two windows of packed samples, whatever the size of the split.

Legend: b samples of a batch, H W grid, n samples of a window, S bytes per packed sample.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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
    """A block's columns: uint8 (n, S), int64 (n,), n keys, and n rows of the split."""

    packed: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    rows: npt.NDArray[np.int64]


class _Window:
    """The samples of a window, in the order in which the order counts them."""

    def __init__(self, blocks: list[_BlockData | DamagedError], sizes: list[int]) -> None:
        good = [block for block in blocks if isinstance(block, _BlockData)]
        if not good:
            raise next(error for error in blocks if isinstance(error, DamagedError))
        self.packed = np.concatenate([block.packed for block in good])
        self.labels = np.concatenate([block.labels for block in good])
        self.rows = np.concatenate([block.rows for block in good])
        self.keys = [key for block in good for key in block.keys]
        self.places = _places(blocks, sizes, len(self.rows))
        self.num_damaged = sum(sizes) - len(self.rows)


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
        self._coming: dict[tuple[int, int], list[Future[_BlockData]]] = {}
        self.skipped_samples = 0
        """Places of damaged blocks' samples that others have taken so far."""

    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """The samples at ``positions`` (b,) of an epoch, on the device."""
        windows, places = self._windows.place(positions, epoch)
        layout = self._split.layout
        tokens = torch.empty(0)
        labels = np.empty(len(positions), dtype=np.int64)
        indices = np.empty(len(positions), dtype=np.int64)
        keys: list[str] = [""] * len(positions)
        numbers = np.unique(windows).tolist()
        for number in numbers:
            window = self._window(epoch, number)
            chosen = np.flatnonzero(windows == number)
            rows = window.places[places[chosen]]
            part = unpack_rows(
                torch.from_numpy(window.packed),
                rows,
                length=layout.length,
                num_codes=layout.num_codes,
            )
            if not len(tokens):
                tokens = torch.empty(len(positions), layout.length, dtype=part.dtype)
            tokens[torch.from_numpy(chosen)] = part
            labels[chosen], indices[chosen] = window.labels[rows], window.rows[rows]
            for slot, row in zip(chosen.tolist(), rows.tolist(), strict=True):
                keys[slot] = window.keys[row]
        self._forget(epoch, numbers[0])
        return Samples(
            tokens=tokens.view(-1, *layout.grid).to(self.device, non_blocking=True),
            labels=torch.from_numpy(labels).to(self.device, non_blocking=True),
            indices=indices,
            find_keys=lambda: keys,
        )

    def close(self) -> None:
        """Stop reading ahead and forget what was read; the loader can be used again."""
        for futures in self._coming.values():
            for future in futures:
                future.cancel()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._open.clear()
        self._coming.clear()

    def _window(self, epoch: int, number: int) -> _Window:
        """A window, read if it was not, while the one after it is ordered."""
        if (epoch, number) not in self._open:
            self._order(epoch, number)
            futures = self._coming.pop((epoch, number))
            self._order(*self._after(epoch, number))
            blocks = [self._result(future) for future in futures]
            sizes = self._split.block_sizes[self._windows.blocks_of(number, epoch)]
            window = _Window(blocks, sizes.tolist())
            self.skipped_samples += window.num_damaged
            self._open[epoch, number] = window
        return self._open[epoch, number]

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number + 1) if number + 1 < self._windows.num_windows else (epoch + 1, 0)

    def _forget(self, epoch: int, number: int) -> None:
        """Drop the windows that lie behind the batch just made."""
        for key in [key for key in self._open if key < (epoch, number)]:
            del self._open[key]
        wanted = {(epoch, number), self._after(epoch, number)}
        wanted.add(self._after(*self._after(epoch, number)))
        for key in [key for key in self._coming if key not in wanted]:
            for future in self._coming.pop(key):
                future.cancel()

    def _order(self, epoch: int, number: int) -> None:
        """Have threads read a window's blocks."""
        if (epoch, number) in self._coming or (epoch, number) in self._open:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS))
        pool = self._pool
        blocks = self._windows.blocks_of(number, epoch).tolist()
        self._coming[epoch, number] = [pool.submit(self._read, block) for block in blocks]

    def _read(self, number: int) -> _BlockData:
        shard, block = self._split.block_at(number)
        rows = shard.rows_of(block)
        labels = shard.open_block(block, Kind.LABELS).astype(np.int64)
        low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
        if low < -1 or (high >= len(self._split.classes) and high > 0):
            raise DamagedError(
                f"{shard.record.file}, block {block}: labels from {low} to {high} for "
                f"{len(self._split.classes)} classes; `seit verify` lists all damage"
            )
        return _BlockData(
            packed=shard.open_packed(block),
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


def _places(
    blocks: list[_BlockData | DamagedError], sizes: list[int], num_good: int
) -> npt.NDArray[np.int64]:
    """Place in the window → row of its intact samples: the next one's where a block is damaged."""
    parts, start = [], 0
    for block, size in zip(blocks, sizes, strict=True):
        if isinstance(block, _BlockData):
            parts.append(np.arange(start, start + size))
            start += size
        else:
            parts.append((start + np.arange(size)) % num_good)
    return np.concatenate(parts)
