"""Opening a store: ``seit.open(path)["train"]`` and what can be read from a split.

Shape letters: N samples, H W grid, S bytes per packed sample.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.shards.blocks import (
    TokenLayout,
    decode_keys,
    decode_labels,
    decode_metadata,
    decode_packed,
    decode_tokens,
)
from seit.shards.card import CARD_NAME, Card, ShardRecord, read_card
from seit.shards.frames import Kind
from seit.shards.wds import BlockPlace, list_blocks

if TYPE_CHECKING:
    from seit.tokenizers import Tokenizer

CODEBOOK_NAME = "codebook.safetensors"
TOKENIZER_NAME = "tokenizer.safetensors"
SKIPPED_NAME = "skipped.jsonl"


@dataclass(frozen=True)
class Sample:
    """One instance: ids (H, W), label (−1 for none), key, and its extra columns."""

    tokens: npt.NDArray[np.unsignedinteger]
    label: int
    key: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Shard:
    """One shard of a split, read block by block; each block of labels, keys … at a time."""

    def __init__(self, path: Path, record: ShardRecord, layout: TokenLayout) -> None:
        self.path = path
        self.record = record
        self.layout = layout

    @cached_property
    def places(self) -> list[BlockPlace]:
        """Where the blocks lie, from the tar headers."""
        return list_blocks(self.path)

    def read(self, block: int, kind: Kind) -> bytes:
        """The raw frame of one block.

        Raises:
            DamagedError: the shard is damaged or ends too early.
        """
        offset, size = self.places[block].frames[kind]
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise DamagedError(f"{self.path} ends inside block {block}; restore it from a copy")
        return data

    def open_block(self, block: int, kind: Kind) -> Any:
        """Decode one frame of a block; the error of a damaged one names shard and block."""
        try:
            data = self.read(block, kind)
            match kind:
                case Kind.TOKENS:
                    return decode_tokens(data, self.layout)
                case Kind.LABELS:
                    return decode_labels(data)
                case Kind.KEYS:
                    return decode_keys(data)
                case Kind.METADATA:
                    return decode_metadata(data)
        except DamagedError as error:
            raise DamagedError(
                f"{self.record.file}, block {block}: {error}; `seit verify` lists all damage"
            ) from error

    def open_packed(self, block: int) -> npt.NDArray[np.uint8]:
        """The packed tokens of a block: uint8 (N, S)."""
        try:
            return decode_packed(self.read(block, Kind.TOKENS), self.layout)
        except DamagedError as error:
            raise DamagedError(
                f"{self.record.file}, block {block}: {error}; `seit verify` lists all damage"
            ) from error


class TokenArray:
    """The tokens of a split as an array (N, H, W) that is read on demand.

    ``tokens[i]`` is (H, W); ``tokens[a:b]`` and ``tokens[[…]]`` are (n, H, W); uint16, or uint32
    when K > 65,536.
    """

    def __init__(self, split: "Split") -> None:
        self._split = split

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return (len(self._split), *self._split.grid)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(
        self, index: SupportsIndex | slice | Sequence[int] | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        if isinstance(index, slice):
            positions = np.arange(*index.indices(len(self)))
            return self._split.read_tokens(positions)
        if isinstance(index, SupportsIndex) and not isinstance(index, np.ndarray):
            position = self._split.checked_index(index)
            row: npt.NDArray[np.unsignedinteger] = self._split.read_tokens(np.array([position]))[0]
            return row
        positions = np.asarray(index)
        if positions.dtype == bool:
            if positions.shape != (len(self),):
                raise UsageError(f"a mask of shape {positions.shape} does not fit {len(self)} rows")
            positions = np.flatnonzero(positions)
        if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise UsageError("tokens take an integer, a slice, or a 1-d array of integers")
        positions = positions.astype(np.int64)
        outside = (positions < -len(self)) | (positions >= len(self))
        if outside.any():
            raise IndexError(f"index {positions[outside][0]} is outside {len(self)} samples")
        return self._split.read_tokens(np.where(positions < 0, positions + len(self), positions))


class Split(Sequence[Sample]):
    """One split of a store: a sequence of ``Sample``, and whole columns of it."""

    def __init__(self, store: "Store", name: str) -> None:
        self.store = store
        self.name = name
        self.layout = store.card.layout
        self.shards = tuple(
            Shard(store.path / record.file, record, self.layout)
            for record in store.card.splits[name]
        )

    @property
    def grid(self) -> tuple[int, int]:
        """The token grid (H, W)."""
        return self.layout.grid

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label indexes them."""
        return self.store.card.classes

    @property
    def tokens(self) -> TokenArray:
        """The ids as an array (N, H, W), read on demand."""
        return TokenArray(self)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Labels int64 (N,), −1 for an unlabelled sample."""
        parts = [shard.open_block(block, Kind.LABELS) for shard, block in self.blocks()]
        labels = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
        if labels.size and not -1 <= labels.min() <= labels.max() < max(1, len(self.classes)):
            raise DamagedError(
                f"split {self.name!r} holds labels from {labels.min()} to {labels.max()} where the "
                f"card names {len(self.classes)} classes"
            )
        return labels

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all samples, in order."""
        return tuple(
            key for shard, block in self.blocks() for key in shard.open_block(block, Kind.KEYS)
        )

    def blocks(self) -> Iterator[tuple[Shard, int]]:
        """All blocks in order, as (shard, block number within it).

        Raises:
            DamagedError: a shard does not hold as many blocks as the card says.
        """
        per_block = self.store.card.block_samples
        for shard in self.shards:
            expected = -(-shard.record.samples // per_block)
            if len(shard.places) != expected:
                raise DamagedError(
                    f"{shard.record.file} holds {len(shard.places)} blocks where the card says "
                    f"{expected}; restore it from a copy"
                )
            for block in range(expected):
                yield shard, block

    def packed(self) -> npt.NDArray[np.uint8]:
        """All samples as they are packed: uint8 (N, S), in memory."""
        out = np.empty((len(self), self.layout.sample_bytes), dtype=np.uint8)
        start = 0
        for shard, block in self.blocks():
            rows = shard.open_packed(block)
            if start + len(rows) > len(out):
                raise DamagedError(f"{shard.record.file} holds more samples than the card says")
            out[start : start + len(rows)] = rows
            start += len(rows)
        if start != len(out):
            raise DamagedError(
                f"split {self.name!r} holds {start} samples where the card says {len(out)}"
            )
        return out

    def read_tokens(self, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.unsignedinteger]:
        """Ids (n, H, W) at int ``positions`` (n,), each in 0 … N−1; each block is read once."""
        out = np.empty((len(positions), *self.grid), dtype=self.layout.dtype)
        shard_numbers = np.searchsorted(self._starts, positions, side="right") - 1
        rows = positions - self._starts[shard_numbers]
        per_block = self.store.card.block_samples
        places = shard_numbers * (1 << 40) + rows // per_block
        for place in np.unique(places):
            shard, block = divmod(int(place), 1 << 40)
            chosen = np.flatnonzero(places == place)
            tokens = self.shards[shard].open_block(block, Kind.TOKENS)
            out[chosen] = self._rows(tokens, rows[chosen] % per_block, shard, block)
        return out

    def checked_index(self, index: SupportsIndex) -> int:
        """Resolve an index that may be negative.

        Raises:
            IndexError: it lies outside the split.
        """
        position = index.__index__()
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is outside {len(self)} samples")
        return position % len(self)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Sample]": ...
    def __getitem__(self, index: int | slice) -> "Sample | list[Sample]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = self.checked_index(index)
        number = bisect_right(self._starts.tolist(), position) - 1
        shard = self.shards[number]
        block, row = divmod(position - int(self._starts[number]), self.store.card.block_samples)
        self._check_block(number, block)
        has_metadata = Kind.METADATA in shard.places[block].frames
        tokens = shard.open_block(block, Kind.TOKENS)
        return Sample(
            tokens=self._rows(tokens, np.array([row]), number, block)[0],
            label=int(shard.open_block(block, Kind.LABELS)[row]),
            key=shard.open_block(block, Kind.KEYS)[row],
            metadata=shard.open_block(block, Kind.METADATA)[row] if has_metadata else {},
        )

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all samples, each block being read once."""
        for shard, block in self.blocks():
            tokens = shard.open_block(block, Kind.TOKENS)
            labels = shard.open_block(block, Kind.LABELS).tolist()
            keys = shard.open_block(block, Kind.KEYS)
            has_metadata = Kind.METADATA in shard.places[block].frames
            metadata = shard.open_block(block, Kind.METADATA) if has_metadata else ({},) * len(keys)
            if not len(tokens) == len(labels) == len(keys) == len(metadata):
                raise DamagedError(f"{shard.record.file}, block {block}: columns differ in length")
            for row, (label, key, extra) in enumerate(zip(labels, keys, metadata, strict=True)):
                yield Sample(tokens=tokens[row], label=label, key=key, metadata=extra)

    def __repr__(self) -> str:
        return f"<split {self.name!r} of {self.store.path}: {len(self)} samples, grid {self.grid}>"

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(shard.record.samples for shard in self.shards)], dtype=np.int64)

    def _check_block(self, shard: int, block: int) -> None:
        if block >= len(self.shards[shard].places):
            raise DamagedError(
                f"{self.shards[shard].record.file} has no block {block}; restore it from a copy"
            )

    def _rows(
        self,
        tokens: npt.NDArray[np.unsignedinteger],
        rows: npt.NDArray[np.integer],
        shard: int,
        block: int,
    ) -> npt.NDArray[np.unsignedinteger]:
        if rows.max(initial=-1) >= len(tokens):
            raise DamagedError(
                f"{self.shards[shard].record.file}, block {block} holds {len(tokens)} samples, "
                "fewer than the card says; restore it from a copy"
            )
        chosen: npt.NDArray[np.unsignedinteger] = tokens[rows]
        return chosen


class Store(Mapping[str, Split]):
    """A tokenized corpus on disk: a mapping from split names to splits."""

    def __init__(self, path: Path, card: Card) -> None:
        self.path = path
        self.card = card

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label indexes them."""
        return self.card.classes

    @property
    def num_bytes(self) -> int:
        """Bytes of every file of the store, the card included."""
        listed = sum(record.bytes for record in self.card.files)
        shards = sum(shard.bytes for split in self.card.splits.values() for shard in split)
        return listed + shards + (self.path / CARD_NAME).stat().st_size

    @cached_property
    def codebook(self) -> npt.NDArray[np.float32]:
        """The codebook float32 (K, C)."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.path / CODEBOOK_NAME
        info = self.card.tokenizer
        try:
            codebook = load_file(path)["codebook"]
        except (SafetensorError, OSError, KeyError) as error:
            raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error
        if codebook.shape != (info.codebook_size, info.codebook_dim):
            raise DamagedError(
                f"{path} holds a codebook {codebook.shape} where the card says "
                f"({info.codebook_size}, {info.codebook_dim})"
            )
        return codebook.astype(np.float32, copy=False)

    def load_tokenizer(self) -> "Tokenizer":
        """Load the tokenizer that made these tokens (needs torch)."""
        from seit.tokenizers import load_tokenizer

        return load_tokenizer(self.path / TOKENIZER_NAME, codebook=self.codebook)

    def __getitem__(self, split: str) -> Split:
        if split not in self.card.splits:
            raise UsageError(
                f"{self.path} has no split {split!r}; it has {', '.join(self.card.splits)}"
            )
        return Split(self, split)

    def __contains__(self, split: object) -> bool:
        return split in self.card.splits

    def __iter__(self) -> Iterator[str]:
        return iter(self.card.splits)

    def __len__(self) -> int:
        return len(self.card.splits)

    def __repr__(self) -> str:
        return f"<store {self.path}: {self.card.samples} samples, {', '.join(self.card.splits)}>"


def open_store(path: str | Path) -> Store:
    """Open the store in the folder ``path``.

    Raises:
        UsageError: there is no store, or one that needs a newer seit.
        DamagedError: its card is not what was written.
    """
    path = Path(path)
    try:
        return Store(path, read_card(path))
    except OSError as error:
        raise SeitError(f"{path} could not be read: {error.strerror or error}") from error
