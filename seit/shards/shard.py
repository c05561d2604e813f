"""One shard of a split, read block by block.

Shape letters: N samples of a block, n chosen ones of them, H W grid, S bytes per packed sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.shards.blocks import MEMBER_SUFFIXES, decode_keys, decode_labels, decode_metadata
from seit.shards.card import ShardRecord
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import Kind
from seit.shards.index import BlockPlaces

_Column = TypeVar("_Column", bound=Sized)
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DamagedBlock:
    """A block that cannot be read: its shard's file, its number there, its rows of the split."""

    file: str
    block: int
    rows: range
    reason: str


@dataclass(frozen=True)
class BlockColumns:
    """Some samples of a block: ids (N, H, W), labels int32 (N,), N keys, N mappings."""

    tokens: npt.NDArray[np.unsignedinteger]
    labels: npt.NDArray[np.int32]
    keys: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.tokens)


class Shard:
    """One shard of a split, read one block at a time, each as a whole or one column of it.

    Args:
        folder: where its file lies.
        record: what the card says of it.
        codec: what codes its tokens.
        block_samples: samples of each block but the last.
        find_places: gives the places of its blocks; called when they are first needed.
        first_row: the number within the split of its first sample.
    """

    def __init__(
        self,
        folder: Folder,
        record: ShardRecord,
        codec: Codec,
        *,
        block_samples: int,
        find_places: Callable[[], BlockPlaces],
        first_row: int = 0,
    ) -> None:
        self.folder = folder
        self.record = record
        self.codec = codec
        self.block_samples = block_samples
        self.first_row = first_row
        self._find_places = find_places

    def within(self, folder: Folder, places: BlockPlaces) -> "Shard":
        """The same shard as it lies in another folder, with its blocks at ``places``."""
        return Shard(
            folder,
            self.record,
            self.codec,
            block_samples=self.block_samples,
            find_places=lambda: places,
            first_row=self.first_row,
        )

    @property
    def num_blocks(self) -> int:
        """Blocks that the card promises."""
        return -(-self.record.samples // self.block_samples)

    @cached_property
    def places(self) -> BlockPlaces:
        """Where the blocks lie: as many as the card says.

        Raises:
            DamagedError: nothing tells it, or something else than the card's blocks is there.
        """
        return self._find_places()

    def samples_of(self, block: int) -> int:
        """Samples that the card promises in a block."""
        return min(self.block_samples, self.record.samples - block * self.block_samples)

    def rows_of(self, block: int) -> range:
        """The numbers within the split of a block's samples."""
        start = self.first_row + block * self.block_samples
        return range(start, start + self.samples_of(block))

    def open_block(self, block: int, kind: Kind) -> Any:
        """Decode one column of a block: as many entries as the block has samples.

        Raises:
            DamagedError: it is not what was written; the message names shard and block.
        """
        return self._open(block, [kind], lambda frames: self._decode(block, kind, frames))

    def open_packed(self, block: int) -> npt.NDArray[np.uint8]:
        """The packed tokens of a block: uint8 (N, S)."""
        return self._open(
            block,
            [Kind.TOKENS],
            lambda frames: self._checked(
                block, Kind.TOKENS, self.codec.decode_packed(frames[Kind.TOKENS])
            ),
        )

    def open_token_rows(
        self, block: int, rows: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        """The ids (n, H, W) of the samples ``rows`` (n,) of a block, counted within it."""
        return self._open(
            block, [Kind.TOKENS], lambda frames: self._token_rows(block, rows, frames)
        )

    def open_columns(self, block: int, rows: npt.NDArray[np.integer] | None = None) -> BlockColumns:
        """All columns of a block, or of its samples ``rows`` (n,), by a single read."""

        def decode(frames: Mapping[Kind, bytes]) -> BlockColumns:
            labels, keys, metadata = (
                self._decode(block, kind, frames)
                for kind in (Kind.LABELS, Kind.KEYS, Kind.METADATA)
            )
            if rows is None:
                tokens = self._decode(block, Kind.TOKENS, frames)
                return BlockColumns(tokens, labels, keys, metadata)
            chosen = rows.tolist()
            return BlockColumns(
                tokens=self._token_rows(block, rows, frames),
                labels=labels[rows],
                keys=tuple(keys[row] for row in chosen),
                metadata=tuple(metadata[row] for row in chosen),
            )

        return self._open(block, list(MEMBER_SUFFIXES), decode)

    def damaged_blocks(self, *, may_lack_places: bool) -> Iterator[DamagedBlock]:
        """Decode everything, and yield the blocks of which any column is damaged.

        ``may_lack_places`` makes a shard whose blocks cannot be found a shard of damaged blocks;
        otherwise that is an error.
        """
        lost = None
        try:
            _ = self.places
        except DamagedError as error:
            if not may_lack_places:
                raise
            lost = error
        for block in range(self.num_blocks):
            try:
                if lost:
                    raise lost
                self.open_columns(block)
            except DamagedError as error:
                yield DamagedBlock(self.record.file, block, self.rows_of(block), str(error))

    def _token_rows(
        self, block: int, rows: npt.NDArray[np.integer], frames: Mapping[Kind, bytes]
    ) -> npt.NDArray[np.unsignedinteger]:
        if len(rows) == self.samples_of(block):
            tokens: npt.NDArray[np.unsignedinteger] = self._decode(block, Kind.TOKENS, frames)[rows]
            return tokens
        try:
            return self.codec.decode_rows(frames[Kind.TOKENS], rows)
        except IndexError as error:
            raise DamagedError("it holds fewer samples of tokens than the card says") from error

    def _decode(self, block: int, kind: Kind, frames: Mapping[Kind, bytes]) -> Any:
        """Decode a column of a block, of whose samples there must be as many as the card says."""
        if kind is Kind.METADATA and kind not in frames:
            return ({},) * self.samples_of(block)
        return self._checked(block, kind, self._decoders[kind](frames[kind]))

    @cached_property
    def _decoders(self) -> Mapping[Kind, Callable[[bytes], Sized]]:
        return {
            Kind.TOKENS: self.codec.decode,
            Kind.LABELS: decode_labels,
            Kind.KEYS: decode_keys,
            Kind.METADATA: decode_metadata,
        }

    def _checked(self, block: int, kind: Kind, column: _Column) -> _Column:
        if len(column) != self.samples_of(block):
            raise DamagedError(
                f"{len(column)} {kind.name.lower()} where the card says "
                f"{self.samples_of(block)} samples"
            )
        return column

    def _open(
        self,
        block: int,
        kinds: Sequence[Kind],
        decode: Callable[[Mapping[Kind, bytes]], _Value],
    ) -> _Value:
        """Read the frames of some columns, neighbours all, and decode them.

        A remote place is asked a second time for bytes that do not decode: they may have been
        changed on the way.
        """
        place = self.places[block].frames
        wanted = {kind: place[kind] for kind in kinds if kind in place}
        if not wanted:
            return decode({})
        start = min(offset for offset, _ in wanted.values())
        end = max(offset + size for offset, size in wanted.values())
        try:
            data = self._read(start, end - start)
            try:
                return decode(_cut(data, wanted, start))
            except DamagedError:
                again = self.folder.reread(self.record.file, start, end - start)
                if again is None or again == data:
                    raise
                return decode(_cut(again, wanted, start))
        except DamagedError as error:
            rows = self.rows_of(block)
            raise DamagedError(
                f"{self.record.file}, block {block}: {error} (samples {rows[0]} to {rows[-1]}); "
                "`seit verify` lists all damage"
            ) from error

    def _read(self, offset: int, size: int) -> bytes:
        path = self.folder.locate(self.record.file)
        try:
            data = self.folder.read(self.record.file, offset, size)
        except PermissionError as error:
            raise SeitError(f"{path} may not be read: {error.strerror or error}") from error
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise DamagedError(f"{path} ends inside the block")
        return data


def _cut(data: bytes, places: Mapping[Kind, tuple[int, int]], start: int) -> Mapping[Kind, bytes]:
    """Cut frames out of what was read from ``start`` on."""
    return {
        kind: data[offset - start : offset - start + size]
        for kind, (offset, size) in places.items()
    }
