"""Load batches from a bounded window of a split that does not fit into memory.

Threads read blocks ahead from a disk or an object store, in the order `window`, at most two windows
at a time: the current one and the next. Memory is O(blocks) for the order plus two windows of
packed samples, whatever the size of the split. With several ranks each holds only its own samples,
and decodes no others if samples are coded separately.

Legend: b samples of a batch, H W grid, n samples of a window or a block, S bytes per packed sample.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import PackedCodec, Shard, Split, pack
from seit.stream.batches import Batch, Loader, Rank, Samples, check_labeled
from seit.stream.device_decoder import decode_on
from seit.stream.order import WindowOrder
from seit.stream.packed import unpack_rows

_MAX_THREADS = 16


@dataclass(frozen=True)
class _BlockData:
    """Columns of a block without its tokens: labels int64 (n,), n keys, n rows of the split."""

    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Coming:
    """A window being read: packed samples uint8 (n, S), and the other columns of each block.

    ``places`` int64 (n,), ascending, are the places of the samples in the window; None for all.
    """

    places: npt.NDArray[np.int64] | None
    packed: npt.NDArray[np.uint8]
    blocks: "list[Future[_BlockData]]"


class _Window:
    """The samples of a window, in the places of its order.

    A damaged block has only space in ``packed``, to which no place points. A window without damage
    may hold some of its samples only, those at ``coming.places``.
    """

    def __init__(
        self,
        coming: _Coming,
        blocks: list[_BlockData | DamagedError],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        whole = np.repeat([isinstance(block, _BlockData) for block in blocks], sizes)
        if not whole.any():
            raise next(error for error in blocks if isinstance(error, DamagedError))
        good = [block for block in blocks if isinstance(block, _BlockData)]
        self.packed = coming.packed
        self.labels = np.concatenate([block.labels for block in good])
        self.rows = np.concatenate([block.rows for block in good])
        self.keys = list(chain.from_iterable(block.keys for block in good))
        self.num_damaged = int(len(whole) - whole.sum())
        if coming.places is None:
            self.numbers = _numbers_of_intact(whole)
            self.packed_rows = np.flatnonzero(whole)
        else:
            self.numbers = np.full(len(whole), -1)
            self.packed_rows = np.arange(len(coming.places))
            self.numbers[coming.places] = self.packed_rows

    def holds(self, places: npt.NDArray[np.int64]) -> bool:
        """Return True if the window holds the samples at ``places``."""
        return bool((self.numbers[places] >= 0).all())


class StreamingLoader(Loader):
    """Batches of ids (b, H, W) in the order `window`; see :func:`seit.stream.loader`.

    The batches are those of a resident loader in the same order. In a store opened with
    ``on_damage="skip"`` the next intact samples of the window replace those of a damaged block, so
    that batches keep their size; ``skipped_samples`` counts them. Otherwise damage is an error when
    its batch is due, unless it is in a sample of another rank.

    Every rank reads all blocks with samples of its own, nearly all in a shuffled split, and keeps
    only these samples: 1 / ranks of a window's memory. Context-coded samples of other ranks are not
    decoded; blocks of packed ones are checked as a whole. If damage is skipped, every rank holds
    all samples, since any may replace a damaged one.

    Args:
        split: split of a store.
        batch_size: size of the global batch.
        seed: seed of the order.
        device: device of the batches.
        window_blocks: blocks that are shuffled together.
        shuffle: False for the stored order.
        rank: the process's part of each batch.
        order: replaces the order `window` by another of the same windows.
        labeled: makes a sample without a label an error.
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
        order: WindowOrder | None = None,
        labeled: bool = False,
    ) -> None:
        self._windows = order or WindowOrder(
            split.block_sizes, seed=seed, window_blocks=window_blocks, shuffles=shuffle
        )
        super().__init__(self._windows, batch_size=batch_size, device=device, rank=rank)
        self._split = decode_on(split, self.device)
        self.classes = split.classes
        self.label_sets = split.label_sets
        self.store, self.sample_shape = split.store, split.grid
        if self.label_sets is not None and split.store.skips_damage:
            raise UsageError(
                f"{split.store.folder} has several labels per sample and skips damaged blocks, "
                "which needs the split in memory; set the mode (data.mode) to resident, or repair "
                "the store"
            )
        self._labelled = labeled
        self._codes_samples = split.store.card.codec != PackedCodec.name
        self._own_only = self.rank.world_size > 1 and not split.store.skips_damage
        self._skips_damage = split.store.skips_damage
        self._pool: ThreadPoolExecutor | None = None
        self._open: dict[tuple[int, int], _Window] = {}
        self._coming: dict[tuple[int, int], _Coming] = {}
        self._spare: list[npt.NDArray[np.uint8]] = []
        self.skipped_samples = 0
        """Number of damaged samples replaced by others so far."""

    @override
    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from batch ``start``.

        In stored order, as for an evaluation, all windows are dropped at its end.
        """
        yield from super().epoch(epoch, start=start)
        if not self.shuffle:
            self._drop()

    def load(self, positions: npt.NDArray[np.int64], epoch: int) -> Samples:
        """Load the samples at ``positions`` (b,) of an epoch, on the device."""
        windows, places = self._windows.place(positions, epoch)
        numbers = np.unique(windows).tolist()
        if len(numbers) == 1:
            samples = self._samples((epoch, numbers[0]), places)
        else:
            chosen = [np.flatnonzero(windows == number) for number in numbers]
            parts = [
                self._samples((epoch, number), places[slots])
                for number, slots in zip(numbers, chosen, strict=True)
            ]
            samples = _join(parts, np.argsort(np.concatenate(chosen)))
        self._forget(epoch, numbers[0])
        return samples._replace(
            tokens=samples.tokens.view(-1, *self._split.grid).to(self.device, non_blocking=True),
            labels=samples.labels.to(self.device, non_blocking=True),
        )

    def _samples(self, key: tuple[int, int], places: npt.NDArray[np.int64]) -> Samples:
        """Return samples of one window (epoch, number), on the host; tokens are (b, L)."""
        layout, window = self._split.layout, self._window(*key)
        if not window.holds(places):  # samples of other ranks are requested, as by a mixture
            self._own_only = False
            self._drop()
            window = self._window(*key)
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
        """Stop reading ahead and drop all windows; the loader can be used again."""
        self._drop()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _drop(self) -> None:
        """Drop all windows, also those being read once they are complete."""
        for coming in self._coming.values():
            for future in coming.blocks:
                future.cancel()
        self._open.clear()
        self._coming.clear()
        self._spare.clear()

    def _window(self, epoch: int, number: int) -> _Window:
        """Return a window, reading it if necessary, and request the next one."""
        if (epoch, number) not in self._open:
            self._order(epoch, number)
            coming = self._coming.pop((epoch, number))
            if self.shuffle or number + 1 < self._windows.num_windows:
                self._order(*self._after(epoch, number))
            blocks = [self._result(future) for future in coming.blocks]
            sizes = self._split.block_sizes[self._windows.blocks_of(number, epoch)]
            window = _Window(coming, blocks, sizes)
            self.skipped_samples += window.num_damaged
            self._open[epoch, number] = window
        return self._open[epoch, number]

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number + 1) if number + 1 < self._windows.num_windows else (epoch + 1, 0)

    def _forget(self, epoch: int, number: int) -> None:
        """Drop the windows before the current batch."""
        for key in [key for key in self._open if key < (epoch, number)]:
            self._spare.append(self._open.pop(key).packed)
        wanted = {(epoch, number), self._after(epoch, number)}
        wanted.add(self._after(*self._after(epoch, number)))
        for key in [key for key in self._coming if key not in wanted]:
            for future in self._coming.pop(key).blocks:
                future.cancel()

    def _order(self, epoch: int, number: int) -> None:
        """Start threads that read a window's blocks, or the rank's samples of them."""
        if (epoch, number) in self._coming or (epoch, number) in self._open:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS))
        pool = self._pool
        blocks = self._windows.blocks_of(number, epoch)
        ends = np.cumsum(self._split.block_sizes[blocks])
        starts = ends - self._split.block_sizes[blocks]
        places = self._own_places(epoch, number) if self._own_only else None
        bounds = ends if places is None else np.searchsorted(places, ends)
        packed = self._take_buffer(int(bounds[-1]))
        rooms = np.split(packed, bounds[:-1])
        rows: list[npt.NDArray[np.int64] | None] = [None] * len(blocks)
        if places is not None:
            of_blocks = np.split(places, bounds[:-1])
            rows = [part - start for part, start in zip(of_blocks, starts, strict=True)]
        futures = [
            pool.submit(self._read, block, chosen, room)
            for block, chosen, room in zip(blocks.tolist(), rows, rooms, strict=True)
        ]
        self._coming[epoch, number] = _Coming(places, packed, futures)

    def _own_places(self, epoch: int, number: int) -> npt.NDArray[np.int64]:
        """Return the places of this rank's samples in a window, ascending."""
        window = self._windows.positions_of(number, epoch)
        if self.shuffle:
            end = min(window.stop, len(self) * self.batch_size)
            positions = np.arange(window.start, max(window.start, end))
            is_own = np.zeros(self.batch_size, dtype=bool)
            is_own[self._part] = True
            positions = positions[is_own[positions % self.batch_size]]
        else:
            own = self.rank.part_of_split(self.num_samples)
            positions = np.arange(max(window.start, own.start), min(window.stop, own.stop))
        return np.unique(self._windows.place(positions, epoch)[1])

    def _take_buffer(self, num_samples: int) -> npt.NDArray[np.uint8]:
        """Return space for a window, uint8 (n, S), reusing the mapped pages of a previous one."""
        while self._spare:
            buffer = self._spare.pop()
            whole = buffer if buffer.base is None else buffer.base
            if len(whole) >= num_samples:
                return whole[:num_samples]
        num_bytes = num_samples * self._split.layout.sample_bytes
        self._split.check_files(num_bytes)
        try:
            return np.empty((num_samples, self._split.layout.sample_bytes), dtype=np.uint8)
        except MemoryError as error:
            raise SeitError(
                f"a window of {self._split!r} takes {num_bytes:,} bytes, more than the free "
                "memory; reduce data.window_blocks"
            ) from error

    def _read(
        self, number: int, chosen: npt.NDArray[np.int64] | None, room: npt.NDArray[np.uint8]
    ) -> _BlockData:
        """Read a block, or its samples ``chosen`` (n,), packed into ``room`` (n, S)."""
        shard, block = self._split.block_at(number)
        rows = shard.rows_of(block)
        if chosen is None:
            chosen = np.arange(len(rows))
        if not len(chosen):
            return _BlockData(labels=np.empty(0, np.int64), keys=(), rows=np.empty(0, np.int64))
        is_part = len(chosen) < len(rows)
        is_decoded = is_part and self._codes_samples
        tokens, labels_N, keys = shard.open_training(block, chosen if is_decoded else None)
        labels = labels_N.astype(np.int64)
        self._check_labels(labels, shard, block)
        if is_decoded:
            layout = self._split.layout
            room[:] = pack(tokens.reshape(-1, layout.length), layout.bits)
        else:
            room[:] = tokens[chosen] if is_part else tokens
        return _BlockData(
            labels=labels[chosen],
            keys=tuple(keys[row] for row in chosen.tolist()) if is_part else keys,
            rows=rows.start + chosen,
        )

    def _check_labels(self, labels: npt.NDArray[np.int64], shard: Shard, block: int) -> None:
        low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
        if low < -1 or (high >= len(self._split.classes) and high > 0):
            raise DamagedError(
                f"{shard.record.file}, block {block}: labels from {low} to {high} for "
                f"{len(self._split.classes)} classes; `seit verify` lists all damage"
            )
        if self._labelled:
            check_labeled(labels, self._split)

    def _result(self, future: "Future[_BlockData]") -> _BlockData | DamagedError:
        try:
            return future.result()
        except DamagedError as error:
            if not self._skips_damage:
                raise
            return error


def _numbers_of_intact(whole: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Map places in the window to intact samples; damaged ones to the next intact sample."""
    before: npt.NDArray[np.int64] = np.cumsum(whole) - whole
    edges = np.flatnonzero(np.diff(whole, prepend=True))
    starts = np.zeros(len(whole), dtype=np.int64)
    starts[edges] = edges
    since = np.arange(len(whole)) - np.maximum.accumulate(starts)
    numbers: npt.NDArray[np.int64] = np.where(whole, before, (before + since) % whole.sum())
    return numbers


def _join(parts: list[Samples], back: npt.NDArray[np.int64]) -> Samples:
    """Return the samples of several windows, in the order of the batch."""
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
