"""The WebDataset container: a shard is a plain POSIX tar with one member group per block.

The members of block 3 of shard 7 are ``00007-0003.tokens``, ``.labels``, ``.keys`` and, if samples
have any, ``.metadata``; each is one frame. Any tar reader can list and extract them, and a
`webdataset.WebDataset` pipeline yields one dictionary per block.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from seit.errors import DamagedError, SeitError
from seit.files import (
    PARTIAL_SUFFIX,
    create_file,
    explained_writes,
    inside,
    publish,
    sha256_of,
)
from seit.shards.blocks import MEMBER_SUFFIXES, Block, encode_block
from seit.shards.card import MAX_SHARD_BLOCKS, ShardRecord
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import MAX_FRAME_BYTES, Kind
from seit.shards.names import check_split_names
from seit.shards.ustar import Member, list_members

_KIND_OF_SUFFIX = {suffix: kind for kind, suffix in MEMBER_SUFFIXES.items()}
_REQUIRED = (Kind.TOKENS, Kind.LABELS, Kind.KEYS)


class ShardWriter:
    """Writer of blocks into ``store/<split>/<index>.tar``, under a temporary name until closed.

    Leaving the ``with`` block by an exception removes the temporary file. After a clean end
    ``record`` describes the published shard.

    Raises:
        UsageError: ``split`` is not a valid name of a split, or its folder is a link.
    """

    record: ShardRecord

    def __init__(self, store: Path, *, split: str, index: int, codec: Codec) -> None:
        check_split_names([split])
        self._relative = f"{split}/{index:05d}.tar"
        self._path = inside(store, self._relative)
        self._partial = self._path.with_name(self._path.name + PARTIAL_SUFFIX)
        self._index = index
        self._codec = codec
        self._num_blocks = 0
        self._num_samples = 0

    def __enter__(self) -> "ShardWriter":
        with explained_writes(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = create_file(self._partial)
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def write(self, block: Block) -> None:
        """Append a block; an empty one is ignored.

        Raises:
            SeitError: the block or the shard is too large for any reader, or the disk is full.
        """
        if not block.keys:
            return
        if self._num_blocks == MAX_SHARD_BLOCKS:
            raise SeitError(
                f"{self._relative} would hold more than {MAX_SHARD_BLOCKS} blocks; write fewer "
                "samples a shard or more a block"
            )
        name = f"{self._index:05d}-{self._num_blocks:04d}"
        with explained_writes(self._path):
            for kind, frame in encode_block(block, self._codec).items():
                member = tarfile.TarInfo(f"{name}.{MEMBER_SUFFIXES[kind]}")
                member.size = len(frame)
                self._tar.addfile(member, io.BytesIO(frame))
        self._num_blocks += 1
        self._num_samples += len(block.keys)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with explained_writes(self._path):
                if kind is None:
                    self._tar.close()
                    self._file.flush()
                    os.fsync(self._file.fileno())
                self._file.close()
                if kind is None:
                    self.record = ShardRecord(
                        file=self._relative,
                        samples=self._num_samples,
                        bytes=self._partial.stat().st_size,
                        sha256=sha256_of(self._partial),
                    )
                    publish(self._partial, self._path)
        finally:
            with suppress(OSError):  # the failed write is reported already
                self._file.close()
            self._partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class BlockPlace:
    """Position of the frames of one block in a shard: kind → (offset, size) in bytes."""

    frames: Mapping[Kind, tuple[int, int]]


def list_blocks(folder: Folder, name: str) -> list[BlockPlace]:
    """List the blocks of a shard from its tar headers alone, by one small read per header.

    Raises:
        DamagedError: the file is missing or is not a whole tar of blocks.
    """
    path = folder.locate(name)
    try:
        groups = _group_members(
            list_members(partial(folder.read, name), file_bytes=folder.size(name))
        )
        _check_groups(groups)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing; restore it from a copy") from error
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
    except DamagedError as error:
        raise DamagedError(
            f"{path} is not an intact shard: {error}; restore it from a copy"
        ) from error
    return [BlockPlace(frames=group) for _, group in groups]


def _group_members(
    members: Iterable[Member],
) -> list[tuple[str, dict[Kind, tuple[int, int]]]]:
    """Group adjacent members by the block in their names."""
    groups: list[tuple[str, dict[Kind, tuple[int, int]]]] = []
    for member in members:
        name, _, suffix = member.name.partition(".")
        if suffix not in _KIND_OF_SUFFIX or member.size > MAX_FRAME_BYTES:
            raise DamagedError(f"unexpected tar member {member.name!r}")
        if not groups or groups[-1][0] != name:
            if len(groups) == MAX_SHARD_BLOCKS:
                raise DamagedError(f"it holds more than {MAX_SHARD_BLOCKS} blocks")
            groups.append((name, {}))
        group = groups[-1][1]
        if _KIND_OF_SUFFIX[suffix] in group:
            raise DamagedError(f"the member {member.name!r} stands twice")
        group[_KIND_OF_SUFFIX[suffix]] = (member.offset, member.size)
    return groups


def _check_groups(groups: list[tuple[str, dict[Kind, tuple[int, int]]]]) -> None:
    for block, (name, group) in enumerate(groups):
        if name.partition("-")[2] != f"{block:04d}":
            raise DamagedError(f"block {block} is named {name!r}")
        missing = [MEMBER_SUFFIXES[kind] for kind in _REQUIRED if kind not in group]
        if missing:
            raise DamagedError(f"block {block} lacks its {', '.join(missing)}")
