"""Opening a store: ``seit.open(path)["train"]`` and what can be read from a split.

Shape letters: N samples, H W grid, S bytes per packed sample.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.files import sha256_of
from seit.shards.blocks import (
    decode_keys,
    decode_labels,
    decode_metadata,
)
from seit.shards.card import CARD_NAME, Card, ShardRecord, read_card
from seit.shards.codecs import Codec, PackedCodec
from seit.shards.frames import FRAME_OVERHEAD_BYTES, Kind
from seit.shards.wds import BlockPlace, list_blocks

if TYPE_CHECKING:
    from seit.tokenizers import Tokenizer

_Column = TypeVar("_Column", bound=Sized)

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
    """One shard of a split, read one column of one block at a time."""

    def __init__(
        self, path: Path, record: ShardRecord, codec: Codec, *, block_samples: int
    ) -> None:
        self.path = path
        self.record = record
        self.codec = codec
        self.block_samples = block_samples

    @cached_property
    def places(self) -> list[BlockPlace]:
        """Where the blocks lie, from the tar headers: as many as the card says.

        Raises:
            DamagedError: the tar is damaged, or its blocks are not those of the card.
        """
        places = list_blocks(self.path)
        expected = -(-self.record.samples // self.block_samples)
        if len(places) != expected:
            raise DamagedError(
                f"{self.record.file} holds {len(places)} blocks where the card says {expected}; "
                "restore it from a copy"
            )
        for block, place in enumerate(places):
            _, size = place.frames[Kind.TOKENS]
            needed = self.samples_of(block) * self.codec.layout.sample_bytes + FRAME_OVERHEAD_BYTES
            if size != needed:
                raise DamagedError(
                    f"{self.record.file}, block {block}: {size} bytes of tokens where "
                    f"{self.samples_of(block)} samples take {needed}; restore it from a copy"
                )
        return places

    def samples_of(self, block: int) -> int:
        """Samples that the card promises in a block."""
        return min(self.block_samples, self.record.samples - block * self.block_samples)

    def open_block(self, block: int, kind: Kind) -> Any:
        """Decode one column of a block: as many entries as the block has samples.

        Raises:
            DamagedError: it is not what was written; the message names shard and block.
        """
        match kind:
            case Kind.TOKENS:
                return self._open(block, kind, self.codec.decode)
            case Kind.LABELS:
                return self._open(block, kind, decode_labels)
            case Kind.KEYS:
                return self._open(block, kind, decode_keys)
            case Kind.METADATA:
                if kind not in self.places[block].frames:
                    return ({},) * self.samples_of(block)
                return self._open(block, kind, decode_metadata)

    def open_packed(self, block: int) -> npt.NDArray[np.uint8]:
        """The packed tokens of a block: uint8 (N, S)."""
        return self._open(block, Kind.TOKENS, self.codec.decode_packed)

    def _open(self, block: int, kind: Kind, decode: Callable[[bytes], _Column]) -> _Column:
        offset, size = self.places[block].frames[kind]
        try:
            column = decode(self._read(offset, size))
            if len(column) != self.samples_of(block):
                raise DamagedError(
                    f"{len(column)} {kind.name.lower()} where the card says "
                    f"{self.samples_of(block)} samples"
                )
        except DamagedError as error:
            raise DamagedError(
                f"{self.record.file}, block {block}: {error}; `seit verify` lists all damage"
            ) from error
        return column

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DamagedError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise DamagedError(f"{self.path} ends inside the block")
        return data


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
        if isinstance(index, SupportsIndex) and not getattr(index, "ndim", 0):
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
        outside = (positions < -len(self)) | (positions >= len(self))
        if outside.any():
            raise IndexError(f"index {positions[outside][0]} is outside {len(self)} samples")
        positions = positions.astype(np.int64)
        return self._split.read_tokens(np.where(positions < 0, positions + len(self), positions))

    def __iter__(self) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        """Iterate over the grids (H, W) of all samples, each block being read once."""
        for shard, block in self._split.blocks():
            yield from shard.open_block(block, Kind.TOKENS)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """All ids (N, H, W), for ``np.asarray``."""
        if copy is False:
            raise ValueError("tokens are read from a store: they cannot become an array uncopied")
        return self[:].astype(dtype or self._split.layout.dtype, copy=False)


class Split(Sequence[Sample]):
    """One split of a store: a sequence of ``Sample``, and whole columns of it."""

    def __init__(self, store: "Store", name: str) -> None:
        self.store = store
        self.name = name
        self.layout = store.card.layout
        self.shards = tuple(
            Shard(
                store.path / record.file,
                record,
                store.codec,
                block_samples=store.card.block_samples,
            )
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
        if labels.size and not -1 <= labels.min() <= labels.max() < len(self.classes):
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
            DamagedError: a shard does not hold the blocks that the card says.
        """
        for shard in self.shards:
            for block in range(len(shard.places)):
                yield shard, block

    def packed(self) -> npt.NDArray[np.uint8]:
        """All samples as they are packed: uint8 (N, S), in memory."""
        blocks = list(self.blocks())
        out = np.empty((len(self), self.layout.sample_bytes), dtype=np.uint8)
        start = 0
        for shard, block in blocks:
            end = start + shard.samples_of(block)
            out[start:end] = shard.open_packed(block)
            start = end
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
            out[chosen] = tokens[rows[chosen] % per_block]
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
            return list(self._samples(range(*index.indices(len(self)))))
        return next(self._samples([self.checked_index(index)]))

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all samples, each block being read once."""
        return self._samples(range(len(self)))

    def __repr__(self) -> str:
        return f"<split {self.name!r} of {self.store.path}: {len(self)} samples, grid {self.grid}>"

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(shard.record.samples for shard in self.shards)], dtype=np.int64)

    def _samples(self, positions: Iterable[int]) -> Iterator[Sample]:
        """The samples at ``positions``, each in 0 … N−1; neighbours share one read of a block."""
        starts = self._starts.tolist()
        opened = None
        for position in positions:
            number = bisect_right(starts, position) - 1
            block, row = divmod(position - starts[number], self.store.card.block_samples)
            if opened != (number, block):
                opened = number, block
                tokens, labels, keys, metadata = (
                    self.shards[number].open_block(block, kind)
                    for kind in (Kind.TOKENS, Kind.LABELS, Kind.KEYS, Kind.METADATA)
                )
            yield Sample(tokens[row].copy(), int(labels[row]), keys[row], metadata[row])


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
    def codec(self) -> Codec:
        """What codes the tokens of every shard."""
        return PackedCodec(self.card.layout)

    @cached_property
    def codebook(self) -> npt.NDArray[np.float32]:
        """The codebook float32 (K, C)."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.path / CODEBOOK_NAME
        info = self.card.tokenizer
        try:
            codebook: npt.NDArray[np.float32] = load(self._read_listed(CODEBOOK_NAME))["codebook"]
        except (SafetensorError, OSError, KeyError) as error:
            raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error
        shape = (info.codebook_size, info.codebook_dim)
        if codebook.shape != shape or codebook.dtype != np.float32:
            raise DamagedError(
                f"{path} holds a codebook {codebook.dtype} {codebook.shape} where the card says "
                f"float32 {shape}"
            )
        return codebook

    def _read_listed(self, name: str) -> bytes:
        for record in self.card.files:
            if record.file == name:
                path = self.path / name
                if path.stat().st_size == record.bytes and sha256_of(path) == record.sha256:
                    return path.read_bytes()
                raise DamagedError(f"{path} does not match its checksum; restore it from a copy")
        raise DamagedError(f"{self.path / CARD_NAME} names no {name}; restore both from a copy")

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
