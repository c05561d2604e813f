"""Columns of a split that the browser keeps in memory: labels, lower-case keys, bits per sample.

They are read on first use, block by block; damaged blocks are noted and left out. Memory is about
20 bytes a sample plus its key, whatever the size of its tokens.

Legend: N samples of the split.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError
from seit.lookahead import map_ahead
from seit.shards import (
    MAX_BLOCK_TOKENS,
    MAX_CODES,
    ContextCodec,
    Kind,
    LabelSets,
    Shard,
    Split,
    fit_context,
)

Rows = npt.NDArray[np.int32]
"""Numbers of samples of a split, in the order in which they are shown."""
DAMAGED = -2
"""Label of samples in damaged blocks."""
_SEPARATOR = "\0"
_FIT_TOKENS = 1 << 20
_MAX_MEASURED = 100_000
"""Most samples of a packed store that are encoded only to learn their bits."""
_Value = TypeVar("_Value")


class KeyColumn:
    """Lower-case keys of all samples in one string, for searching.

    Args:
        keys: keys in order; empty for samples of damaged blocks.
    """

    def __init__(self, keys: Iterator[str]) -> None:
        lowered = [key.lower().replace(_SEPARATOR, " ") for key in keys]
        lengths = np.fromiter(map(len, lowered), dtype=np.int64, count=len(lowered))
        self._text = _SEPARATOR.join(lowered)
        self._starts = np.concatenate([[0], np.cumsum(lengths + 1)])[: len(lowered)]

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, wanted: str) -> npt.NDArray[np.bool_]:
        """Return a mask, bool (N,), of the keys that contain ``wanted``, ignoring case."""
        found = np.zeros(len(self), dtype=bool)
        wanted = wanted.lower().replace(_SEPARATOR, " ")
        if not wanted:
            return ~found
        place = self._text.find(wanted)
        while place >= 0:
            row = int(np.searchsorted(self._starts, place, side="right")) - 1
            found[row] = True
            if row + 1 == len(self):
                break
            place = self._text.find(wanted, int(self._starts[row + 1]))
        return found

    @cached_property
    def order(self) -> Rows:
        """Rows in the order of their keys, ignoring case: int32 (N,)."""
        keys = self._text.split(_SEPARATOR) if len(self) else []
        return np.array(sorted(range(len(self)), key=keys.__getitem__), dtype=np.int32)


class Catalog:
    """Columns of a split, read on first use; thread-safe."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.damage: dict[int, str] = {}
        """Reasons of damaged blocks, by their number in the split."""
        self._lock = threading.Lock()
        self._ends = np.cumsum(split.block_sizes)

    def __len__(self) -> int:
        return len(self.split)

    def block_of(self, row: int) -> int:
        """Return the number of the block that holds a row."""
        return int(np.searchsorted(self._ends, row, side="right"))

    @property
    def damaged_samples(self) -> int:
        """Samples in the damaged blocks found so far."""
        return sum(map(self._size, self.damage))

    @cached_property
    def labels(self) -> npt.NDArray[np.int32]:
        """Labels int32 (N,): −1 for an unlabeled sample, −2 in a damaged block."""
        known = len(self.split.classes)

        def read(shard: Shard, block: int) -> npt.NDArray[np.int32]:
            labels: npt.NDArray[np.int32] = shard.open_block(block, Kind.LABELS)
            # A stranger's labels may be outside the classes.
            return np.where((labels >= -1) & (labels < known), labels, -1)

        with self._lock:
            return self._column(read, lambda size: np.full(size, DAMAGED, np.int32), np.int32)

    @cached_property
    def label_sets(self) -> LabelSets | None:
        """Several labels a sample; None if each has one, or if a block of them is damaged."""
        try:
            return self.split.label_sets
        except DamagedError:  # noted when the labels are read
            return None

    def holds(self, label: int) -> npt.NDArray[np.bool_]:
        """Return a mask, bool (N,), of the samples of a class; −1 for those of none."""
        sets = self.label_sets
        if sets is None:
            return np.asarray(self.labels == label)
        wanted = np.arange(sets.num_classes) == label if label >= 0 else np.ones(sets.num_classes)
        found = sets.any_of(wanted.astype(bool))
        return found if label >= 0 else ~found

    def rows_of(self, label: int) -> Rows:
        """Return the samples of a class in order; −1 for those of none."""
        if self.label_sets is not None:
            return np.flatnonzero(self.holds(label)).astype(np.int32)
        first, stop = np.searchsorted(self.labels, [label, label + 1], sorter=self._by_label)
        return self._by_label[first:stop]

    @cached_property
    def _by_label(self) -> Rows:
        return np.argsort(self.labels, kind="stable").astype(np.int32)

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """Samples of each class, and of none last: int64 (classes + 1,)."""
        if self.label_sets is not None:
            return np.append(self.label_sets.counts, self.holds(-1).sum()).astype(np.int64)
        labels = self.labels
        known = len(self.split.classes)
        counts = np.bincount(labels[labels >= 0], minlength=known)[:known]
        return np.append(counts, (labels == -1).sum()).astype(np.int64)

    @cached_property
    def keys(self) -> KeyColumn:
        """Lower-case keys of all samples."""

        def all_keys() -> Iterator[str]:
            for number, keys in enumerate(self._blocks(lambda s, b: s.open_block(b, Kind.KEYS))):
                yield from keys if keys is not None else [""] * self._size(number)

        with self._lock:
            return KeyColumn(all_keys())

    def find_metadata(self, wanted: str) -> npt.NDArray[np.bool_]:
        """Return a mask, bool (N,), of samples with a text in their metadata, ignoring case."""
        wanted = wanted.lower()

        def read(shard: Shard, block: int) -> npt.NDArray[np.bool_]:
            entries: tuple[Mapping[str, Any], ...] = shard.open_block(block, Kind.METADATA)
            return np.array([bool(entry) and wanted in _as_text(entry) for entry in entries])

        return self._column(read, lambda size: np.zeros(size, dtype=bool), np.bool_)

    @cached_property
    def bits(self) -> npt.NDArray[np.float32]:
        """Bits that the context coder spends on each sample: float32 (N,); NaN where damaged.

        Raises:
            UsageError: the store is packed, and has too many codes or samples to be coded here.
        """
        store = self.split.store
        codec = None if store.card.codec == ContextCodec.name else self._fit()

        def read(shard: Shard, block: int) -> npt.NDArray[np.float32]:
            if codec is None:
                return 8 * shard.open_stored_bytes(block).astype(np.float32)
            tokens = shard.open_block(block, Kind.TOKENS)
            return 8 * codec.stored_bytes(codec.encode(tokens)).astype(np.float32)

        with self._lock:
            return self._column(read, lambda size: np.full(size, np.nan, np.float32), np.float32)

    def _fit(self) -> ContextCodec:
        layout, codebook = self.split.layout, self.split.store.codebook
        if layout.num_codes > MAX_CODES:
            raise UsageError(
                f"bits per sample are those of the context coder, which supports up to "
                f"{MAX_CODES:,} codes; this store has {layout.num_codes:,}"
            )
        if len(self) > _MAX_MEASURED:
            raise UsageError(
                f"this store is packed; to sort its {len(self):,} samples by bits, convert it first"
                " with `seit convert STORE DST --codec context`"
            )
        count = min(len(self), max(1, _FIT_TOKENS // layout.length))
        rows = np.arange(count, dtype=np.int64) * len(self) // max(count, 1)
        tokens_nHW = self.split.read_tokens(rows)
        return fit_context(layout, tokens_nHW, codebook, total_samples=len(self))

    def _column(
        self,
        read: Callable[[Shard, int], npt.NDArray[Any]],
        missing: Callable[[int], npt.NDArray[Any]],
        dtype: type[np.generic],
    ) -> npt.NDArray[Any]:
        parts = [
            missing(self._size(number)) if part is None else part
            for number, part in enumerate(self._blocks(read))
        ]
        return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype)

    def _size(self, block: int) -> int:
        return int(self.split.block_sizes[block])

    def _blocks(self, read: Callable[[Shard, int], _Value]) -> Iterator[_Value | None]:
        """Yield what ``read`` returns of every block; None for a damaged one, which is noted."""

        def attempt(place: tuple[int, tuple[Shard, int]]) -> _Value | None:
            number, (shard, block) = place
            try:
                return read(shard, block)
            except DamagedError as error:
                self.damage[number] = str(error)
                return None

        block_tokens = self.split.store.card.block_samples * self.split.layout.length
        return map_ahead(
            attempt, enumerate(self.split.blocks()), most=max(1, MAX_BLOCK_TOKENS // block_tokens)
        )


def _as_text(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False).lower()
