"""Reader of the shards of a group, block by block and without a Zarr library.

Legend: N samples of a block, n chosen ones of them, H W grid, S bytes per packed sample.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import MAX_FRAME_BYTES, Kind
from seit.shards.shard import Shard
from seit.shards.shard_list import ShardList
from seit.shards.zarr.chunks import (
    NO_LABEL,
    Place,
    decode_index,
    decode_labels,
    decode_metadata,
    decode_rows,
    decode_strings,
    index_bytes,
    label_bytes,
    pad_rows,
)
from seit.shards.zarr.division import ZarrGroup


class ZarrShard(Shard):
    """Shard whose columns are separate files, each with an index of its chunks at its end.

    As in Zarr libraries, values that are not stored read as 0, −1, "" and {}.

    Args:
        folder: folder of the store.
        group: the card's description of the split.
        number: number of the shard within the split.
        find_codec: returns the codec of its tokens; called when they are first read.
    """

    def __init__(
        self,
        folder: Folder,
        group: ZarrGroup,
        number: int,
        find_codec: Callable[[], Codec],
    ) -> None:
        super().__init__(
            folder,
            group.shards[number],
            files={kind: records[number] for kind, records in group.files.items()},
            finds_own_blocks=True,
            find_codec=find_codec,
            block_samples=group.chunking.block_rows,
            first_row=number * group.chunking.shard_rows,
        )
        self._group = group
        self._number = number
        self._places: dict[Kind, list[Place | None]] = {}

    def within(self, folder: Folder) -> "ZarrShard":
        """Return the same shard in another folder."""
        return ZarrShard(folder, self._group, self._number, self._find_codec)

    def check_places(self, kind: Kind) -> None:
        """Read the index of a column.

        Raises:
            DamagedError: it is damaged or does not match the card's blocks.
        """
        self._column_places(kind)

    def _find(self, block: int, kind: Kind) -> Place | None:
        return self._column_places(kind)[block] if kind in self.files else None

    def _column_places(self, kind: Kind) -> list[Place | None]:
        if kind not in self._places:
            file = self.files[kind].file
            try:
                self._places[kind] = self._read_places(kind)
            except DamagedError as error:
                raise DamagedError(
                    f"{file} is not an intact shard: {error}; restore it from a copy"
                ) from error
        return self._places[kind]

    def _read_places(self, kind: Kind) -> list[Place | None]:
        chunking, record = self._group.chunking, self.files[kind]
        size = index_bytes(chunking.blocks_per_shard)
        end = record.bytes - size
        if end < 0:
            raise DamagedError(f"it is shorter than its index of {size} bytes")
        decode = partial(
            decode_index,
            end=end,
            most_bytes=label_bytes(chunking.block_rows) if kind is Kind.LABELS else MAX_FRAME_BYTES,
        )
        places = self._read_decoded(record.file, end, size, decode, what="its index")
        if any(place is not None for place in places[self.num_blocks :]):
            raise DamagedError(f"it holds more than the {self.num_blocks} blocks of the card")
        return places[: self.num_blocks]

    def _decode(self, kind: Kind, data: bytes | None, count: int) -> Any:
        chunk_rows = self.block_samples
        if data is None:
            return self._fill(kind, count)
        match kind:
            case Kind.TOKENS:
                return pad_rows(self.codec.decode(data), count)
            case Kind.LABELS:
                return decode_labels(data, chunk_rows=chunk_rows)[:count]
            case Kind.KEYS:
                return decode_strings(data, chunk_rows=chunk_rows, rows=count)
            case _:
                return decode_metadata(data, chunk_rows=chunk_rows, rows=count)

    def _decode_packed(self, data: bytes | None, count: int) -> npt.NDArray[np.uint8]:
        if data is None:
            return np.zeros((count, self.codec.layout.sample_bytes), np.uint8)
        return pad_rows(self.codec.decode_packed(data), count)

    def _decode_rows(
        self, data: bytes | None, rows: npt.NDArray[np.integer], count: int
    ) -> npt.NDArray[np.unsignedinteger]:
        if data is None:
            tokens_nHW: npt.NDArray[np.unsignedinteger] = self._fill(Kind.TOKENS, len(rows))
            return tokens_nHW
        return decode_rows(self.codec, data, rows, most=count)

    def _fill(self, kind: Kind, count: int) -> Any:
        """Return a column of fill values, for chunks that are not stored."""
        match kind:
            case Kind.TOKENS:
                layout = self.codec.layout
                return np.zeros((count, *layout.grid), layout.dtype)
            case Kind.LABELS:
                return np.full(count, NO_LABEL, np.int32)
            case Kind.KEYS:
                return ("",) * count
            case _:
                return ({},) * count


def open_zarr_shards(
    folder: Folder, group: ZarrGroup, find_codec: Callable[[], Codec]
) -> ShardList[ZarrShard]:
    """Return the shards of a split in ``folder`` according to the card; nothing is read yet."""
    return ShardList(len(group.shards), partial(_open_shard, folder, group, find_codec))


def _open_shard(
    folder: Folder, group: ZarrGroup, find_codec: Callable[[], Codec], number: int
) -> ZarrShard:
    return ZarrShard(folder, group, number, find_codec)
