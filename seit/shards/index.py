"""The block index of a split: the sizes of all frames, which determine the place of every block.

``SPLIT/blocks.index`` is one frame per shard, in the card's order. Sizes determine all offsets in
a tar, so a reader needs none of its headers.

Legend: n blocks of a shard.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError
from seit.shards.blocks import MEMBER_SUFFIXES
from seit.shards.card import Card, FileRecord, ShardRecord
from seit.shards.folders import Folder, Location, open_folder
from seit.shards.frames import (
    FRAME_OVERHEAD_BYTES,
    MAX_FRAME_BYTES,
    Coding,
    Kind,
    decode_frame,
    encode_frame,
)
from seit.shards.listed import record_of
from seit.shards.ustar import RECORD_BYTES, filled_up
from seit.shards.wds import BlockPlace, list_blocks

INDEX_NAME = "blocks.index"
_KINDS = tuple(MEMBER_SUFFIXES)
"""Order of a block's members, and of the sizes in the index."""
_ENTRY = np.dtype("<u4")
_BLOCK_BYTES = _ENTRY.itemsize * len(_KINDS)
_MAX_WHOLE_BYTES = 1 << 26
"""Largest index read whole; a larger one is read shard by shard, as its size is not trusted."""
_TAR_END_BYTES = 2 * RECORD_BYTES


def index_name(split: str) -> str:
    """Return the name of a split's index within the store."""
    return f"{split}/{INDEX_NAME}"


def write_index(store: Location, split: str, shards: Sequence[ShardRecord]) -> FileRecord:
    """Write the index of a split whose shards are finished; the card must list the file.

    Costs one small read per tar header.

    Raises:
        DamagedError: a shard is damaged.
        SeitError: the index could not be written.
    """
    folder = open_folder(store)
    data = b"".join(encode_index(read_frame_sizes(folder, shard.file)) for shard in shards)
    folder.write(index_name(split), data)
    return record_of(index_name(split), data)


def encode_index(sizes_n4: npt.NDArray[np.integer]) -> bytes:
    """Encode the sizes (n, 4) of a shard's frames in bytes: tokens, labels, keys, metadata or 0."""
    raw = sizes_n4.astype(_ENTRY).tobytes()
    return encode_frame(Kind.INDEX, raw, count=len(sizes_n4), coding=Coding.RAW)


def decode_index(data: bytes) -> npt.NDArray[np.uint32]:
    """Decode an index frame: the sizes of a shard's frames, uint32 (n, 4)."""
    frame = decode_frame(data, kind=Kind.INDEX)
    if len(frame.raw) != _BLOCK_BYTES * frame.count:
        raise DamagedError(f"the index of {frame.count} blocks takes {len(frame.raw)} bytes")
    return np.frombuffer(frame.raw, dtype=_ENTRY).reshape(-1, len(_KINDS))


def read_frame_sizes(folder: Folder, name: str) -> npt.NDArray[np.uint32]:
    """Return the sizes of a shard's frames, uint32 (n, 4), from its tar headers.

    Raises:
        DamagedError: the file is missing, not a shard, or not laid out as by the writer.
    """
    places = list_blocks(folder, name)
    sizes = [[place.frames.get(kind, (0, 0))[1] for kind in _KINDS] for place in places]
    sizes_n4 = np.array(sizes, dtype=_ENTRY).reshape(-1, len(_KINDS))
    computed = BlockPlaces(sizes_n4)
    for block, place in enumerate(places):
        if computed[block] != place:
            raise DamagedError(
                f"{folder.locate(name)}: the members of block {block} do not stand in the order "
                f"{', '.join(MEMBER_SUFFIXES.values())}; write the shard again"
            )
    return sizes_n4


class BlockPlaces:
    """Places of the blocks of a shard, from the sizes uint32 (n, 4) of their frames."""

    def __init__(self, sizes_n4: npt.NDArray[np.uint32]) -> None:
        members_n4 = -(-sizes_n4.astype(np.int64) // RECORD_BYTES) * RECORD_BYTES
        members_n4 += RECORD_BYTES * (sizes_n4 > 0)
        ends = np.cumsum(members_n4.sum(axis=1))
        self.sizes_n4 = sizes_n4
        self.end = int(ends[-1]) if len(ends) else 0
        """Size of all blocks, in bytes."""
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]

    def __len__(self) -> int:
        return len(self.sizes_n4)

    def __getitem__(self, block: int) -> BlockPlace:
        position = int(self._starts[block])
        frames = {}
        for kind, size in zip(_KINDS, self.sizes_n4[block].tolist(), strict=True):
            if size:
                frames[kind] = (position + RECORD_BYTES, size)
                position += RECORD_BYTES + filled_up(size)
        return BlockPlace(frames)


class SplitIndex:
    """Index of a split, read on first use; without one, the headers of its shards are read."""

    def __init__(self, folder: Folder, card: Card, split: str) -> None:
        name = index_name(split)
        self.record = card.listed.get(name)
        """The card's record of the index; None if the store has none."""
        self.shards = card.splits[split]
        """The card's shards of the split."""
        self.block_samples = card.block_samples
        """Samples of each block except the last of a shard."""
        self._folder = folder
        self._card = card

    def places(self, number: int) -> BlockPlaces:
        """Return the places of the blocks of the split's shard ``number``, as many as in the card.

        Raises:
            DamagedError: the index is damaged, or does not match the card's shards.
        """
        if self.record is None:
            return self.places_by_headers(number, self._folder)
        return self._checked(self._indexed_sizes(number), number, origin=self.record.file)

    def places_by_headers(self, number: int, folder: Folder) -> BlockPlaces:
        """Return the same from the tar headers of the copy of the shard in ``folder``.

        Raises:
            DamagedError: it is missing, not a shard, or its blocks differ from those of the card.
        """
        name = self.shards[number].file
        return self._checked(read_frame_sizes(folder, name), number, origin=name)

    def _indexed_sizes(self, number: int) -> npt.NDArray[np.uint32]:
        assert self.record is not None, "asked of an index that is not there"
        start, end = self._bounds[number : number + 2]
        if self._bounds[-1] > _MAX_WHOLE_BYTES:
            data = self._read(start, end - start)
        else:
            data = self._data[start:end]
        try:
            return decode_index(data)
        except DamagedError as error:
            raise DamagedError(
                f"{self.record.file}, shard {number}: {error}; restore it from a copy"
            ) from error

    @cached_property
    def _bounds(self) -> list[int]:
        """Bounds of the frames of the shards in the index."""
        bounds = [0]
        for shard in self.shards:
            size = FRAME_OVERHEAD_BYTES + _BLOCK_BYTES * self._num_blocks(shard)
            bounds.append(bounds[-1] + size)
        return bounds

    @cached_property
    def _data(self) -> bytes:
        return self._read(0, self._bounds[-1])

    def _read(self, offset: int, size: int) -> bytes:
        """Read a part of the index, after checking its size against the card's blocks."""
        assert self.record is not None, "asked of an index that is not there"
        record, expected = self.record, self._bounds[-1]
        if record.bytes != expected:
            raise DamagedError(
                f"{record.file} has {record.bytes} bytes where the blocks of the card take "
                f"{expected}; restore it from a copy"
            )
        path = self._folder.locate(record.file)
        try:
            return self._folder.read(record.file, offset, size)
        except FileNotFoundError as error:
            raise DamagedError(f"{path} is missing; restore it from a copy") from error
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error

    def _num_blocks(self, shard: ShardRecord) -> int:
        return -(-shard.samples // self.block_samples)

    def _checked(
        self, sizes_n4: npt.NDArray[np.uint32], number: int, *, origin: str
    ) -> BlockPlaces:
        places = BlockPlaces(sizes_n4)
        try:
            self._check(places, self.shards[number])
        except DamagedError as error:
            raise DamagedError(f"{origin}: {error}; restore it from a copy") from error
        return places

    def _check(self, places: BlockPlaces, shard: ShardRecord) -> None:
        expected = self._num_blocks(shard)
        if len(places) != expected:
            raise DamagedError(
                f"{shard.file} holds {len(places)} blocks where the card says {expected}"
            )
        sizes_n4 = places.sizes_n4
        present = sizes_n4 > 0
        if not present[:, : _KINDS.index(Kind.METADATA)].all():
            raise DamagedError(f"a block of {shard.file} lacks a column")
        if (present & (sizes_n4 < FRAME_OVERHEAD_BYTES)).any() or (
            sizes_n4 > MAX_FRAME_BYTES
        ).any():
            raise DamagedError(f"a column of {shard.file} has the size of no frame")
        self._check_tokens(sizes_n4[:, _KINDS.index(Kind.TOKENS)], shard)
        if places.end + _TAR_END_BYTES > shard.bytes:
            raise DamagedError(
                f"the blocks of {shard.file} take {places.end} bytes of a file of {shard.bytes}"
            )

    def _check_tokens(self, found: npt.NDArray[np.uint32], shard: ShardRecord) -> None:
        """Check that packed tokens have one size, and that no other codec's tokens are larger."""
        per_block = self.block_samples
        samples = np.minimum(per_block, shard.samples - per_block * np.arange(len(found)))
        packed = samples * self._card.layout.sample_bytes + FRAME_OVERHEAD_BYTES
        wrong = found != packed if self._card.codec == "packed" else found > packed
        if wrong.any():
            block = int(np.argmax(wrong))
            raise DamagedError(
                f"{shard.file}, block {block}: {found[block]} bytes of tokens where "
                f"{samples[block]} samples take {packed[block]}"
            )
