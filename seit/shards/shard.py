"""Base of shards: one shard of a split, read block by block from any container.

Legend: N samples of a block, n chosen ones of them, H W grid, S bytes per packed sample.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.shards.blocks import MEMBER_SUFFIXES, Block
from seit.shards.card import FileRecord, ShardRecord
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import Kind

_Value = TypeVar("_Value")
_Decoder = Callable[[bytes | None], Any]
"""Decode a column of a block from its bytes, or from None if the block has none."""


@dataclass(frozen=True)
class DamagedBlock:
    """Unreadable block: file of its shard, its number there, and its rows of the split."""

    file: str
    block: int
    rows: range
    reason: str


@dataclass(frozen=True)
class BlockColumns:
    """Samples of a block: ids (N, H, W), labels int32 (N,), N keys, N mappings."""

    tokens: npt.NDArray[np.unsignedinteger]
    labels: npt.NDArray[np.int32]
    keys: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def as_block(self) -> Block:
        """Return the samples as a block to write; without metadata if every mapping is empty."""
        metadata = self.metadata if any(self.metadata) else None
        return Block(tokens=self.tokens, labels=self.labels, keys=self.keys, metadata=metadata)


class Shard(ABC):
    """Shard of a split, read one block at a time, either whole or one column.

    A container determines the files of the columns, the places of blocks in them, and their
    decoding; all reading is done here. Thread-safe.

    Args:
        folder: folder of the store.
        record: the card's record of the shard.
        files: the card's records of the files of the columns; columns may share a file.
        finds_own_blocks: whether these files alone determine the places of the blocks. If so,
            a fault in them makes the blocks damaged; else the other file is the damaged one.
        find_codec: returns the codec of its tokens; called when they are first read.
        block_samples: samples of each block except the last.
        first_row: number of its first sample within the split.
    """

    def __init__(
        self,
        folder: Folder,
        record: ShardRecord,
        *,
        files: Mapping[Kind, FileRecord],
        finds_own_blocks: bool,
        find_codec: Callable[[], Codec],
        block_samples: int,
        first_row: int,
    ) -> None:
        self.folder = folder
        self.record = record
        self.files = files
        self.finds_own_blocks = finds_own_blocks
        self.block_samples = block_samples
        self.first_row = first_row
        self._find_codec = find_codec

    @abstractmethod
    def check_places(self, kind: Kind) -> None:
        """Locate a column of the blocks.

        Raises:
            DamagedError: it cannot be found, or differs from the card's blocks.
        """

    @abstractmethod
    def _find(self, block: int, kind: Kind) -> tuple[int, int] | None:
        """Return offset and size of a column of a block in its file; None if left out."""

    @abstractmethod
    def _decode(self, kind: Kind, data: bytes | None, count: int) -> Any:
        """Decode a column of a block of ``count`` samples."""

    @abstractmethod
    def _decode_packed(self, data: bytes | None, count: int) -> npt.NDArray[np.uint8]:
        """Decode the packed tokens of a block of ``count`` samples: uint8 (N, S)."""

    @abstractmethod
    def _decode_rows(
        self, data: bytes | None, rows: npt.NDArray[np.integer], count: int
    ) -> npt.NDArray[np.unsignedinteger]:
        """Decode the tokens of the samples ``rows`` (n,) of a block of ``count``: (n, H, W)."""

    @cached_property
    def codec(self) -> Codec:
        """Codec of its tokens."""
        return self._find_codec()

    @property
    def num_blocks(self) -> int:
        """Number of blocks according to the card."""
        return -(-self.record.samples // self.block_samples)

    def samples_of(self, block: int) -> int:
        """Return the number of samples in a block according to the card."""
        return min(self.block_samples, self.record.samples - block * self.block_samples)

    def rows_of(self, block: int) -> range:
        """Return the numbers of a block's samples within the split."""
        start = self.first_row + block * self.block_samples
        return range(start, start + self.samples_of(block))

    def open_block(self, block: int, kind: Kind) -> Any:
        """Decode one column of a block: as many entries as the block has samples.

        Raises:
            DamagedError: it is damaged; the message names file, block and samples.
        """
        return self._open(block, {kind: self._decoder(block, kind)})[kind]

    def open_packed(self, block: int) -> npt.NDArray[np.uint8]:
        """Return the packed tokens of a block: uint8 (N, S)."""
        decode = partial(self._decode_packed, count=self.samples_of(block))
        packed_NS: npt.NDArray[np.uint8] = self._open(block, {Kind.TOKENS: decode})[Kind.TOKENS]
        return packed_NS

    def open_stored_bytes(self, block: int) -> npt.NDArray[np.int64]:
        """Return the bytes that the tokens of each sample of a block take: int64 (N,)."""
        count = self.samples_of(block)

        def measure(data: bytes | None) -> npt.NDArray[np.int64]:
            found = np.zeros(count, dtype=np.int64)  # samples that a container leaves out
            if data is not None:
                sizes = self.codec.stored_bytes(data)[:count]
                found[: len(sizes)] = sizes
            return found

        sizes_N: npt.NDArray[np.int64] = self._open(block, {Kind.TOKENS: measure})[Kind.TOKENS]
        return sizes_N

    def open_training(
        self, block: int, rows: npt.NDArray[np.integer] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32], tuple[str, ...]]:
        """Read tokens, labels (N,) and keys of a block, with one read per file.

        Tokens are packed, uint8 (N, S); or, if ``rows`` (n,) are given, their ids (n, H, W). Labels
        and keys are those of the whole block.
        """
        decoders = {kind: self._decoder(block, kind) for kind in (Kind.LABELS, Kind.KEYS)}
        count = self.samples_of(block)
        decoders[Kind.TOKENS] = (
            partial(self._decode_packed, count=count)
            if rows is None
            else partial(self._decode_rows, rows=rows, count=count)
        )
        found = self._open(block, decoders)
        return found[Kind.TOKENS], found[Kind.LABELS], found[Kind.KEYS]

    def open_token_rows(
        self, block: int, rows: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        """Read the ids (n, H, W) of the samples ``rows`` (n,), numbered within the block."""
        decode = partial(self._decode_rows, rows=rows, count=self.samples_of(block))
        tokens_nHW: npt.NDArray[np.unsignedinteger] = self._open(block, {Kind.TOKENS: decode})[
            Kind.TOKENS
        ]
        return tokens_nHW

    def open_columns(self, block: int, rows: npt.NDArray[np.integer] | None = None) -> BlockColumns:
        """Read all columns of a block, or of its samples ``rows`` (n,), with one read per file."""
        decoders = {kind: self._decoder(block, kind) for kind in MEMBER_SUFFIXES}
        if rows is None:
            found = self._open(block, decoders)
            return BlockColumns(*(found[kind] for kind in MEMBER_SUFFIXES))
        decoders[Kind.TOKENS] = partial(self._decode_rows, rows=rows, count=self.samples_of(block))
        found = self._open(block, decoders)
        chosen = rows.tolist()
        return BlockColumns(
            tokens=found[Kind.TOKENS],
            labels=found[Kind.LABELS][rows],
            keys=tuple(found[Kind.KEYS][row] for row in chosen),
            metadata=tuple(found[Kind.METADATA][row] for row in chosen),
        )

    def check_sizes(self) -> None:
        """Compare the sizes of its files with the card's, without reading them.

        Raises:
            DamagedError: a file is missing, or its size differs from the card's.
        """
        for record in dict.fromkeys(self.files.values()):
            path = self.folder.locate(record.file)
            try:
                size = self.folder.size(record.file)
            except OSError as error:
                raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
            if size != record.bytes:
                raise DamagedError(
                    f"{path} has {size} bytes where the card says {record.bytes}; restore it from "
                    "a copy"
                )

    def find_damage(self, block: int) -> DamagedBlock | None:
        """Decode all columns of a block; return the damaged block, or None if it is intact.

        Raises:
            DamagedError: a file outside the shard is damaged: the codec's tables, or the index
                that locates the block.
        """
        _ = self.codec
        reason = self._lost
        if reason is None:
            try:
                self.open_columns(block)
            except DamagedError as error:
                reason = str(error)
        if reason is None:
            return None
        return DamagedBlock(self.record.file, block, self.rows_of(block), reason)

    @cached_property
    def _lost(self) -> str | None:
        """Reason why its blocks cannot be found, if its own files are to blame."""
        try:
            for kind in self.files:
                self.check_places(kind)
        except DamagedError as error:
            if not self.finds_own_blocks:
                raise
            return str(error)
        return None

    def _decoder(self, block: int, kind: Kind) -> _Decoder:
        return partial(self._decode, kind, count=self.samples_of(block))

    def _open(self, block: int, decoders: Mapping[Kind, _Decoder]) -> dict[Kind, Any]:
        """Decode columns of a block, with one read for those that are adjacent in a file."""
        if Kind.TOKENS in decoders:
            _ = self.codec  # raises here if its tables are damaged: the block may be intact
        columns = {}
        places: dict[str, dict[Kind, tuple[int, int]]] = {}
        for kind, decode in decoders.items():
            place = self._find(block, kind)
            if place is None:
                columns[kind] = decode(None)
            else:
                places.setdefault(self.files[kind].file, {})[kind] = place
        for file, of_file in places.items():
            columns |= self._open_file(block, file, of_file, decoders)
        return columns

    def _open_file(
        self,
        block: int,
        file: str,
        places: Mapping[Kind, tuple[int, int]],
        decoders: Mapping[Kind, _Decoder],
    ) -> dict[Kind, Any]:
        start = min(offset for offset, _ in places.values())
        end = max(offset + size for offset, size in places.values())

        def decode(data: bytes) -> dict[Kind, Any]:
            return {
                kind: decoders[kind](data[offset - start : offset - start + size])
                for kind, (offset, size) in places.items()
            }

        try:
            return self._read_decoded(file, start, end - start, decode, what="the block")
        except DamagedError as error:
            rows = self.rows_of(block)
            raise DamagedError(
                f"{file}, block {block}: {error} (samples {rows[0]} to {rows[-1]}); "
                "`seit verify` lists all damage"
            ) from error

    def _read_decoded(
        self, file: str, offset: int, size: int, decode: Callable[[bytes], _Value], *, what: str
    ) -> _Value:
        """Read a range of a file and decode it.

        If bytes of a remote place do not decode, read them once more: they may have been changed
        in transit.
        """
        data = self._read(file, offset, size, what)
        try:
            return decode(data)
        except DamagedError:
            again = self.folder.reread(file, offset, size)
            if again is None or again == data:
                raise
            return decode(again)

    def _read(self, file: str, offset: int, size: int, what: str) -> bytes:
        path = self.folder.locate(file)
        try:
            data = self.folder.read(file, offset, size)
        except PermissionError as error:
            raise SeitError(f"{path} may not be read: {error.strerror or error}") from error
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise DamagedError(f"{path} ends inside {what}")
        return data
