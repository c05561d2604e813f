"""Reader of shards of the WebDataset container, in which one tar holds every column of a block.

Legend: N samples of a block, n chosen ones of them, H W grid, S bytes per packed sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sized
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.blocks import MEMBER_SUFFIXES, Block, decode_keys, decode_labels, decode_metadata
from seit.shards.card import Card
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import Kind
from seit.shards.index import BlockPlaces, SplitIndex
from seit.shards.shard import Shard
from seit.shards.shard_list import ShardList
from seit.shards.wds import list_blocks

_Column = TypeVar("_Column", bound=Sized)
_DECODERS: Mapping[Kind, Callable[[bytes], Sized]] = {
    Kind.LABELS: decode_labels,
    Kind.KEYS: decode_keys,
    Kind.METADATA: decode_metadata,
}


class TarShard(Shard):
    """Shard whose blocks are found by the split's index, or by its tar headers without one.

    Args:
        folder: folder of the store.
        index: index of the split.
        number: number of the shard within the split.
        find_codec: returns the codec of its tokens; called when they are first read.
        first_row: number of its first sample within the split.
        places: places of the blocks, if known already.
    """

    def __init__(
        self,
        folder: Folder,
        index: SplitIndex,
        number: int,
        find_codec: Callable[[], Codec],
        *,
        first_row: int,
        places: BlockPlaces | None = None,
    ) -> None:
        super().__init__(
            folder,
            index.shards[number],
            files=dict.fromkeys(MEMBER_SUFFIXES, index.shards[number]),
            finds_own_blocks=index.record is None,
            find_codec=find_codec,
            block_samples=index.block_samples,
            first_row=first_row,
        )
        self.index = index
        self.number = number
        self._given_places = places

    def within(self, folder: Folder, places: BlockPlaces) -> "TarShard":
        """Return the same shard in another folder, with its blocks at ``places``."""
        return TarShard(
            folder,
            self.index,
            self.number,
            self._find_codec,
            first_row=self.first_row,
            places=places,
        )

    @cached_property
    def places(self) -> BlockPlaces:
        """Places of the blocks, as many as the card lists.

        Raises:
            DamagedError: they cannot be found, or differ from the card's blocks.
        """
        if self._given_places is not None:
            return self._given_places
        return self.index.places(self.number)

    def check_places(self, kind: Kind) -> None:  # noqa: ARG002
        """Locate the blocks: every column has the same places.

        Raises:
            DamagedError: they cannot be found, or differ from the card's blocks.
        """
        _ = self.places

    def _find(self, block: int, kind: Kind) -> tuple[int, int] | None:
        return self.places[block].frames.get(kind)

    def _decode(self, kind: Kind, data: bytes | None, count: int) -> Any:
        if data is None:
            assert kind is Kind.METADATA, "the places of the other columns are checked"
            return ({},) * count
        decode = self.codec.decode if kind is Kind.TOKENS else _DECODERS[kind]
        return _checked(decode(data), kind, count)

    def _decode_packed(self, data: bytes | None, count: int) -> npt.NDArray[np.uint8]:
        assert data is not None, "the places of tokens are checked"
        return _checked(self.codec.decode_packed(data), Kind.TOKENS, count)

    def _decode_rows(
        self, data: bytes | None, rows: npt.NDArray[np.integer], count: int
    ) -> npt.NDArray[np.unsignedinteger]:
        assert data is not None, "the places of tokens are checked"
        if len(rows) == count:
            tokens_NHW = _checked(self.codec.decode(data), Kind.TOKENS, count)
            return np.asarray(tokens_NHW[rows])
        try:
            return self.codec.decode_rows(data, rows)
        except IndexError as error:
            raise DamagedError("it holds fewer samples of tokens than the card says") from error


def open_tar_shards(
    folder: Folder, card: Card, split: str, find_codec: Callable[[], Codec]
) -> ShardList[TarShard]:
    """Return the shards of a split in ``folder`` according to the card; nothing is read yet."""
    index = SplitIndex(folder, card, split)
    samples = (record.samples for record in index.shards)
    first_rows = np.cumsum([0, *samples], dtype=np.int64)
    build = partial(_open_shard, folder, index, find_codec, first_rows)
    return ShardList(len(index.shards), build)


def _open_shard(
    folder: Folder,
    index: SplitIndex,
    find_codec: Callable[[], Codec],
    first_rows: npt.NDArray[np.int64],
    number: int,
) -> TarShard:
    return TarShard(folder, index, number, find_codec, first_row=int(first_rows[number]))


def read_tar_blocks(folder: Folder, name: str, codec: Codec) -> Iterator[Block]:
    """Yield the blocks of a shard of tars that no card lists yet.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    for place in list_blocks(folder, name):
        columns: dict[Kind, Any] = {}
        for kind, (offset, size) in place.frames.items():
            decode = codec.decode if kind is Kind.TOKENS else _DECODERS[kind]
            columns[kind] = decode(folder.read(name, offset, size))
        yield Block(
            tokens=columns[Kind.TOKENS],
            labels=columns[Kind.LABELS],
            keys=tuple(columns[Kind.KEYS]),
            metadata=columns.get(Kind.METADATA),
        )


def _checked(column: _Column, kind: Kind, count: int) -> _Column:
    if len(column) != count:
        raise DamagedError(f"{len(column)} {kind.name.lower()} where the card says {count} samples")
    return column
