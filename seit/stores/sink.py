"""Places that a store's files go to as they are finished: a folder here, or object storage.

An unfinished store in object storage has no card, and a file `.unfinished.json` with the request
that it is of. The same request writes the same files again, over those that a killed call left.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import seit
from seit.documents import parse_json
from seit.errors import SeitError, UsageError
from seit.files import inside
from seit.shards import (
    CARD_NAME,
    Card,
    FileRecord,
    Folder,
    LocalFolder,
    ShardRecord,
    encode_index,
    index_name,
    open_store,
    read_frame_sizes,
    record_of,
    write_index,
    write_listed,
)

UNFINISHED_NAME = ".unfinished.json"
"""File of an unfinished store in object storage; it is removed after the card is written."""
_MAX_BYTES = 1 << 24


class Sink:
    """Local folder that holds the whole store.

    Attributes:
        folder: where shards are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, record: ShardRecord) -> None:
        """Take over a finished shard from the folder; here it stays."""

    def write_index(self, split: str, shards: Sequence[ShardRecord]) -> FileRecord:
        """Write the index of a split, all of whose shards were put."""
        return write_index(self.folder, split, shards)

    def write_listed(self, contents: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
        """Write small files (name → content) and return the card's entries."""
        return write_listed(self.folder, contents)

    def write_card(self, card: Card) -> None:
        """Write the card, after everything else."""
        card.write(self.folder)


class RemoteSink(Sink):
    """Place in object storage; a shard is on the local disk only until it is uploaded.

    Args:
        place: the place.
        scratch: local folder for the shard that is being written.
        request: what the store is to be, as JSON; equal requests make equal stores.

    Raises:
        UsageError: the place holds something, or an unfinished store of another request.
        SeitError: a remote server does not respond.
    """

    def __init__(self, place: Folder, scratch: Path, request: Mapping[str, Any]) -> None:
        super().__init__(scratch)
        self.place = place
        self._indexes: dict[str, bytes] = {}
        data = json.dumps({"version": seit.__version__, **request}, sort_keys=True).encode()
        names = place.names()
        if names and UNFINISHED_NAME not in names:
            raise UsageError(f"{place} is not empty; choose a new or empty place")
        if not place.create(UNFINISHED_NAME, data) and not self._is_mine(data):
            raise UsageError(
                f"{place} holds an unfinished store of another call; run that one again, or remove "
                "what is there"
            )
        self.is_complete = CARD_NAME in names
        """True if an earlier call wrote the card."""

    def put(self, record: ShardRecord) -> None:
        """Upload a finished shard, and remove the local file."""
        path = inside(self.folder, record.file)
        sizes_n4 = read_frame_sizes(LocalFolder(self.folder), record.file)
        self._indexes[record.file] = encode_index(sizes_n4)
        self.place.upload(record.file, path, sha256=record.sha256)
        path.unlink()

    def write_index(self, split: str, shards: Sequence[ShardRecord]) -> FileRecord:
        """Write the index of a split, all of whose shards were put."""
        data = b"".join(self._indexes.pop(shard.file) for shard in shards)
        return self.write_listed({index_name(split): data})[0]

    def write_listed(self, contents: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
        """Write small files (name → content) and return the card's entries."""
        for name, data in contents.items():
            self.place.write(name, data)
        return tuple(record_of(name, data) for name, data in contents.items())

    def write_card(self, card: Card) -> None:
        """Write the card unless there is one, after everything else.

        Raises:
            UsageError: another call wrote one meanwhile.
        """
        is_written = self.place.create(CARD_NAME, card.to_text().encode())
        if not is_written and open_store(self.place).card.seal != card.seal:
            raise UsageError(
                f"another call wrote a store at {self.place} meanwhile, some of whose shards may "
                "be overwritten; `seit verify` it, or choose another place"
            )

    def close(self) -> None:
        """Remove the mark of an unfinished store, after the card is written."""
        try:
            self.place.remove(UNFINISHED_NAME)
        except FileNotFoundError:
            return  # another call of the same request was faster

    def _is_mine(self, data: bytes) -> bool:
        try:
            found = self.place.read(UNFINISHED_NAME, 0, _MAX_BYTES)
            return bool(parse_json(found) == parse_json(data))
        except FileNotFoundError:
            raise SeitError(f"another call has just finished a store at {self.place}") from None
        except ValueError:
            return False
