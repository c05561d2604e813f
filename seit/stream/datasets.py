"""Splits and loaders as torch datasets, for training code built around a ``DataLoader``.

A plain loader is faster: per-sample work, collating and worker processes all cost more than
unpacking.

Legend: B batch, H W grid, N samples, n chosen ones, S bytes per packed sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, SupportsIndex, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from seit.errors import UsageError
from seit.shards import Kind, Split
from seit.stream.batches import Loader
from seit.stream.packed import id_dtype, unpack_rows


class Item(TypedDict):
    """One sample: ids (H, W), label (−1 for none), key."""

    tokens: Tensor
    label: int
    key: str


class ItemBatch(TypedDict):
    """Samples as collated by torch: ids (B, H, W), labels int64 (B,), B keys."""

    tokens: Tensor
    label: Tensor
    key: list[str]


@dataclass(frozen=True)
class _Columns:
    """In-memory data of N samples, shared by forked worker processes.

    Attributes:
        packed: uint8 (N, S), None if tokens are read from the store.
        labels: int64 (N,).
        keys: str (N,), an array, since reading a key of a list would copy its page in a worker.
        rows: int64 (N,), their numbers in the split.
    """

    packed: Tensor | None
    labels: npt.NDArray[np.int64]
    keys: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]


class TokenDataset(Dataset[Item]):
    """A map-style dataset of a split, for a ``DataLoader`` with any sampler and workers.

    In a store opened with ``on_damage="skip"`` the samples of damaged blocks are skipped. Workers
    may be forked or spawned: forked ones share the memory, and each spawned one reads the split
    again.

    Args:
        split: split of a store.
        dtype: dtype of the ids; None for int16, or int32 if K > 32,768.
        resident: keeps the packed tokens in memory. Otherwise every block that a batch touches is
            read and checked as a whole, once per batch: use a sampler that draws neighbors, or a
            streaming loader.

    Raises:
        UsageError: ``dtype`` cannot hold the ids.
        DamagedError: a block is damaged.
    """

    def __init__(
        self, split: Split, *, dtype: torch.dtype | None = None, resident: bool = True
    ) -> None:
        own_dtype = id_dtype(split.layout.num_codes)
        if dtype not in (None, own_dtype, torch.int32, torch.int64):
            raise UsageError(
                f"{dtype} cannot hold ids below {split.layout.num_codes:,}; pass {own_dtype} "
                "or torch.int64"
            )
        self._split = split
        self._dtype = dtype or own_dtype
        self._resident = resident
        _ = self._columns  # before any worker is forked

    def __len__(self) -> int:
        return len(self._columns.rows)

    def __getitem__(self, index: SupportsIndex) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Item]:
        """Return the samples at ``indices`` (n,), in that order; each block is read once."""
        columns = self._columns
        places = np.array([self._checked(index) for index in indices], dtype=np.int64)
        tokens_nHW = self._tokens(places)
        return [
            Item(tokens=tokens_HW, label=label, key=columns.keys[place])
            for tokens_HW, label, place in zip(
                tokens_nHW.unbind(), columns.labels[places].tolist(), places.tolist(), strict=True
            )
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_columns"}

    @cached_property
    def _columns(self) -> _Columns:
        split = self._split
        keys = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.KEYS))
        return _Columns(
            packed=torch.from_numpy(split.packed()) if self._resident else None,
            labels=split.labels,
            keys=np.array(list(chain.from_iterable(keys)), dtype=np.dtypes.StringDType()),
            rows=split.rows,
        )

    def _checked(self, index: SupportsIndex) -> int:
        place = index.__index__()
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is outside {len(self)} samples")
        return place % len(self)

    def _tokens(self, places: npt.NDArray[np.int64]) -> Tensor:
        """Return ids (n, H, W) of the samples ``places`` (n,)."""
        layout, packed_NS = self._split.layout, self._columns.packed
        if packed_NS is None:
            found = self._split.read_tokens(self._columns.rows[places])
            return torch.from_numpy(found).to(self._dtype)
        tokens_nL = unpack_rows(packed_NS, places, length=layout.length, num_codes=layout.num_codes)
        return tokens_nL.view(-1, *layout.grid).to(self._dtype)


class StreamDataset(IterableDataset[ItemBatch]):
    """An iterable dataset of a loader's batches, for ``DataLoader(dataset, batch_size=None)``.

    Each iteration is the loader's next epoch. It supports no worker processes: the loader reads
    ahead itself, and each worker would yield all batches again.

    Args:
        loader: a loader of any kind.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[ItemBatch]:
        """Yield one epoch.

        Raises:
            UsageError: called in a worker process.
        """
        if get_worker_info() is not None:
            raise UsageError(
                "a StreamDataset supports no worker processes, since its loader reads ahead; "
                "pass num_workers=0"
            )
        for batch in self.loader:
            yield ItemBatch(tokens=batch.tokens, label=batch.labels, key=batch.keys)
