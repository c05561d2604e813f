"""Writer of a split as a group: atomic, and equal samples make equal files."""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from seit.errors import UsageError
from seit.files import PARTIAL_SUFFIX, create_file, explained_writes, publish, sha256_of
from seit.shards.blocks import BLOCK_SAMPLES, MEMBER_SUFFIXES, Block
from seit.shards.card import FileRecord, ShardRecord
from seit.shards.codecs import Codec
from seit.shards.frames import Kind
from seit.shards.zarr.chunks import Place, encode_chunks, encode_index
from seit.shards.zarr.division import (
    MAX_SHARD_BLOCKS,
    SHARD_SAMPLES,
    Chunking,
    document_file,
    shard_file,
)
from seit.shards.zarr.documents import document_text, zarr_documents


@dataclass(frozen=True)
class ZarrSplit:
    """Files of a written group: the shards of ``tokens`` in order, and all others."""

    shards: tuple[ShardRecord, ...]
    files: tuple[FileRecord, ...]


def write_zarr_split(
    folder: Path,
    blocks: Iterable[Block],
    *,
    codec: Codec,
    num_samples: int,
    classes: Sequence[str],
    block_samples: int = BLOCK_SAMPLES,
    shard_samples: int | None = None,
) -> ZarrSplit:
    """Write the blocks of a split as the Zarr group ``folder``, atomically.

    Every block except the last holds ``block_samples`` samples, and all together ``num_samples``.
    A shard holds ``shard_samples``, or as many blocks as fit into `SHARD_SAMPLES`. One block is in
    memory at a time. Equal samples make equal files.

    Raises:
        UsageError: ``folder`` exists or cannot be written, or the sizes do not fit.
        SeitError: a block is too large for any reader, or the disk is full.
    """
    if shard_samples is None:
        shard_blocks = max(1, SHARD_SAMPLES // max(1, block_samples))
        shard_samples = block_samples * min(shard_blocks, MAX_SHARD_BLOCKS)
    chunking = Chunking.plan(num_samples, block_samples=block_samples, shard_samples=shard_samples)
    partial = folder.with_name(f".{folder.name}{PARTIAL_SUFFIX}")
    with explained_writes(folder):
        if folder.exists():
            raise UsageError(f"{folder} already exists; choose another folder or remove it")
    try:
        with explained_writes(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        has_metadata = _write_columns(partial, folder, blocks, codec, chunking)
        documents = zarr_documents(
            chunking,
            codec=codec,
            tables=codec.tables,
            classes=classes,
            has_metadata=has_metadata,
        )
        with explained_writes(folder):
            for kind, document in documents.items():
                path = partial.parent / document_file(partial.name, kind)
                _write_flushed(path, document_text(document).encode())
            written = _list_split(partial, folder.name, chunking)
            _flush_folders(partial)
            publish(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return written


def _write_columns(
    group: Path, folder: Path, blocks: Iterable[Block], codec: Codec, chunking: Chunking
) -> bool:
    """Write the shards of all arrays; returns True if any sample has metadata."""
    count = 0
    has_metadata = False
    with ExitStack() as stack:
        columns = {
            kind: stack.enter_context(_ColumnWriter(group, folder, kind, chunking))
            for kind in MEMBER_SUFFIXES
        }
        for block in blocks:
            if not block.keys:
                continue
            assert count % chunking.block_rows == 0, "only the last block may be short"
            assert len(block.keys) <= chunking.block_rows, "a block is longer than a chunk"
            count += len(block.keys)
            has_metadata |= block.metadata is not None
            for kind, chunk in encode_chunks(block, codec, chunking.block_rows).items():
                columns[kind].add(chunk)
        assert count == chunking.num_samples, "the blocks are not the samples that were announced"
    if not has_metadata:
        shutil.rmtree(group / MEMBER_SUFFIXES[Kind.METADATA], ignore_errors=True)
    return has_metadata


class _ColumnWriter:
    """Writer of the chunks of one array into ``group``, whose final name will be ``folder``."""

    def __init__(self, group: Path, folder: Path, kind: Kind, chunking: Chunking) -> None:
        self._group = group
        self._folder = folder
        self._kind = kind
        self._blocks_per_shard = chunking.blocks_per_shard
        self._shard = 0
        self._places: list[Place | None] = []
        self._position = 0
        self._stack = ExitStack()

    def __enter__(self) -> "_ColumnWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None and self._places:
                self._finish()

    def add(self, chunk: bytes | None) -> None:
        """Append the next chunk; None leaves it out."""
        with explained_writes(self._folder):
            if not self._places:
                path = self._group.parent / shard_file(self._group.name, self._kind, self._shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._stack.enter_context(create_file(path))
            self._file.write(chunk or b"")
        self._places.append(None if chunk is None else (self._position, len(chunk)))
        self._position += len(chunk or b"")
        if len(self._places) == self._blocks_per_shard:
            self._finish()

    def _finish(self) -> None:
        absent = [None] * (self._blocks_per_shard - len(self._places))
        with explained_writes(self._folder):
            self._file.write(encode_index([*self._places, *absent]))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._stack.close()
        self._shard += 1
        self._places, self._position = [], 0


def _write_flushed(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with create_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _list_split(partial: Path, group: str, chunking: Chunking) -> ZarrSplit:
    """Record size and sha256 of every file of a group that still has its temporary name."""
    records = {}
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        name = f"{group}/{path.relative_to(partial).as_posix()}"
        records[name] = FileRecord(name, path.stat().st_size, sha256_of(path))
    shards = []
    for shard in range(chunking.num_shards):
        record = records.pop(shard_file(group, Kind.TOKENS, shard))
        samples = chunking.samples_of_shard(shard)
        shards.append(ShardRecord(record.file, record.bytes, record.sha256, samples=samples))
    return ZarrSplit(shards=tuple(shards), files=tuple(records.values()))


def _flush_folders(group: Path) -> None:
    for folder in (group, *(path for path in group.rglob("*") if path.is_dir())):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
