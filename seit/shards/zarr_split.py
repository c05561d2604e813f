"""The Zarr v3 container: a split is a group `SPLIT.zarr/` that any Zarr library opens.

Its arrays `tokens` (N, H, W), `labels` (N,), `keys` (N,) and, where samples carry any, `metadata`
(N,) are cut along the samples alone: a chunk is a block, and a shard of the store is the shard with
one number of each array. Files are written and read here without a Zarr library;
:mod:`seit.shards.zarr_codec` is what a Zarr library needs to decode `tokens`.

Shape letters: N samples of the split, n rows of a chunk, H W grid, S bytes per packed sample.
"""

import base64
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.files import PARTIAL_SUFFIX, explained_writes, publish, sha256_of
from seit.shards.blocks import BLOCK_SAMPLES, MEMBER_SUFFIXES, Block, parse_json
from seit.shards.card import MAX_CARD_BYTES, FileRecord, ShardRecord
from seit.shards.codecs import MAX_BLOCK_TOKENS, Codec
from seit.shards.frames import MAX_COUNT, MAX_FRAME_BYTES, MAX_RAW_BYTES, Kind

CODEC_NAME = "seit"
"""What `zarr.json` calls the codec of `tokens`."""
SHARD_SAMPLES = 8192
"""Samples per shard; only the last shard of a split may hold fewer."""
MAX_SHARD_BLOCKS = 1 << 12
"""No shard holds more blocks: its index takes at most 64 KiB."""
METADATA_NAME = "zarr.json"

ReadRange = Callable[[str, int, int], bytes]
"""``read(file, offset, size)``: that many bytes of a file of the store; see ``ZarrShard``."""
FileSize = Callable[[str], int]
"""``size(file)``: bytes of a file of the store; see ``ZarrShard``."""

_COLUMNS = tuple(MEMBER_SUFFIXES)
_ATTRIBUTES_VERSION = 1
_NO_LABEL = -1
_NO_METADATA = "{}"
_MISSING = (1 << 64) - 1
_FRAME_COUNT = slice(8, 12)
"""Where a frame says how many samples it holds."""
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_PLACE = struct.Struct("<QQ")
_GZIP_WINDOW = 31
_GZIP_OVERHEAD_BYTES = 18
_MAX_DEFLATE_RATIO = 1032
_CRC32C: Mapping[str, Any] = {"name": "crc32c"}
_LITTLE: Mapping[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_LABEL_CODECS = [_LITTLE, _CRC32C]
_STRING_CODECS: Sequence[Mapping[str, Any]] = [
    {"name": "vlen-utf8"},
    {"name": "gzip", "configuration": {"level": 9}},
    _CRC32C,
]


@dataclass(frozen=True)
class Chunking:
    """How the samples of a split are cut into chunks and shards.

    Attributes:
        num_samples: samples of the split, N.
        block_rows: rows of a chunk, n; a chunk is a block.
        blocks_per_shard: chunks of a full shard.
    """

    num_samples: int
    block_rows: int
    blocks_per_shard: int

    @classmethod
    def plan(cls, num_samples: int, *, block_samples: int, shard_samples: int) -> "Chunking":
        """Cut a split; one that is smaller than a block or a shard gets smaller ones.

        Raises:
            UsageError: a shard would not be whole blocks, or be over the limits.
        """
        if not 1 <= block_samples <= MAX_COUNT:
            raise UsageError(f"a block holds 1 to {MAX_COUNT} samples, not {block_samples}")
        blocks, rest = divmod(shard_samples, block_samples)
        if rest or not 1 <= blocks <= MAX_SHARD_BLOCKS:
            raise UsageError(
                f"a shard of {shard_samples} samples is not 1 to {MAX_SHARD_BLOCKS} blocks of "
                f"{block_samples} samples; choose a multiple of {block_samples}"
            )
        return cls(
            num_samples=num_samples,
            block_rows=max(1, min(block_samples, num_samples)),
            blocks_per_shard=max(1, min(blocks, -(-num_samples // block_samples))),
        )

    @property
    def shard_rows(self) -> int:
        """Rows of a full shard."""
        return self.block_rows * self.blocks_per_shard

    @property
    def num_shards(self) -> int:
        """Shards of each array."""
        return -(-self.num_samples // self.shard_rows)

    def samples_of_shard(self, shard: int) -> int:
        """Samples of a shard."""
        return min(self.shard_rows, self.num_samples - shard * self.shard_rows)


@dataclass(frozen=True)
class ZarrSplit:
    """The files of a written group: the shards of ``tokens`` in order, and all others."""

    shards: tuple[ShardRecord, ...]
    files: tuple[FileRecord, ...]


def shard_file(group: str, kind: Kind, shard: int) -> str:
    """The path of a shard of one array, relative to the store."""
    tail = "/0/0" if kind is Kind.TOKENS else ""
    return f"{group}/{MEMBER_SUFFIXES[kind]}/c/{shard}{tail}"


def codec_configuration(codec: Codec) -> dict[str, Any]:
    """What `zarr.json` says of the codec of `tokens`: enough to rebuild it."""
    configuration: dict[str, Any] = {
        "codec": dict(codec.card_entry),
        "codes": codec.layout.num_codes,
        "grid": list(codec.layout.grid),
    }
    if codec.tables is not None:
        configuration["tables"] = base64.b64encode(codec.tables).decode("ascii")
    return configuration


def zarr_documents(
    chunking: Chunking, *, codec: Codec, classes: Sequence[str], has_metadata: bool
) -> dict[str, dict[str, Any]]:
    """The `zarr.json` documents of a group, by their paths within it."""
    tokens = {"name": CODEC_NAME, "configuration": codec_configuration(codec)}
    arrays = {
        Kind.TOKENS: _array_document(
            chunking, codec.layout.dtype.name, codecs=[tokens], fill=0, grid=codec.layout.grid
        ),
        Kind.LABELS: _array_document(chunking, "int32", codecs=_LABEL_CODECS, fill=_NO_LABEL),
        Kind.KEYS: _array_document(chunking, "string", codecs=_STRING_CODECS, fill=""),
    }
    if has_metadata:
        arrays[Kind.METADATA] = _array_document(
            chunking, "string", codecs=_STRING_CODECS, fill=_NO_METADATA
        )
    attributes = {"seit": {"version": _ATTRIBUTES_VERSION, "classes": list(classes)}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    columns = {
        f"{MEMBER_SUFFIXES[kind]}/{METADATA_NAME}": document for kind, document in arrays.items()
    }
    return {METADATA_NAME: group, **columns}


def _array_document(
    chunking: Chunking,
    data_type: str,
    *,
    codecs: Sequence[Mapping[str, Any]],
    fill: int | str,
    grid: tuple[int, ...] = (),
) -> dict[str, Any]:
    shards = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunking.block_rows, *grid],
            "codecs": list(codecs),
            "index_codecs": [_LITTLE, _CRC32C],
            "index_location": "end",
        },
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [chunking.num_samples, *grid],
        "data_type": data_type,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunking.shard_rows, *grid]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [shards],
        "dimension_names": ["sample", "row", "column"] if grid else ["sample"],
    }


def write_zarr_split(
    folder: Path,
    blocks: Iterable[Block],
    *,
    codec: Codec,
    num_samples: int,
    classes: Sequence[str],
    block_samples: int = BLOCK_SAMPLES,
    shard_samples: int = SHARD_SAMPLES,
) -> ZarrSplit:
    """Write the blocks of a split as the Zarr group ``folder``: complete or not at all.

    Every block but the last holds ``block_samples`` samples, and all together ``num_samples``.
    One block is in memory at a time. Equal samples make equal files.

    Raises:
        UsageError: ``folder`` exists or cannot be written, or the sizes do not fit.
        SeitError: a block is too large for any reader, or the disk is full.
    """
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
            chunking, codec=codec, classes=classes, has_metadata=has_metadata
        )
        with explained_writes(folder):
            for name, document in documents.items():
                _write_flushed(partial / name, _document_text(document).encode())
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
    """Write the shards of all arrays; True if any sample has metadata."""
    count = 0
    has_metadata = False
    with ExitStack() as stack:
        columns = {
            kind: stack.enter_context(_ColumnWriter(group, folder, kind, chunking))
            for kind in _COLUMNS
        }
        for block in blocks:
            if not block.keys:
                continue
            assert count % chunking.block_rows == 0, "only the last block may be short"
            assert len(block.keys) <= chunking.block_rows, "a block is longer than a chunk"
            count += len(block.keys)
            has_metadata |= block.metadata is not None
            for kind, chunk in _encode_chunks(block, codec, chunking.block_rows).items():
                columns[kind].add(chunk)
        assert count == chunking.num_samples, "the blocks are not the samples that were announced"
    if not has_metadata:
        shutil.rmtree(group / MEMBER_SUFFIXES[Kind.METADATA], ignore_errors=True)
    return has_metadata


def _encode_chunks(block: Block, codec: Codec, block_rows: int) -> dict[Kind, bytes | None]:
    """Code a block into its chunks by kind; None leaves a chunk out."""
    layout = codec.layout
    count = len(block.keys)
    assert block.tokens.shape == (count, *layout.grid), "tokens do not fit the layout"
    assert block.labels.shape == (count,), "one label a sample"
    assert int(block.tokens.max(initial=0)) < layout.num_codes, "an id is not below K"
    labels = np.full(block_rows, _NO_LABEL, dtype="<i4")
    labels[:count] = block.labels
    return {
        Kind.TOKENS: codec.encode(block.tokens),
        Kind.LABELS: _seal(labels.tobytes()),
        Kind.KEYS: _encode_strings(block.keys, padding="", rows=block_rows),
        Kind.METADATA: _encode_metadata(block.metadata, block_rows),
    }


def _encode_metadata(metadata: Sequence[Mapping[str, Any]] | None, block_rows: int) -> bytes | None:
    if metadata is None:
        return None
    texts = [
        json.dumps(
            entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
        )
        for entry in metadata
    ]
    return _encode_strings(texts, padding=_NO_METADATA, rows=block_rows)


def _encode_strings(texts: Sequence[str], *, padding: str, rows: int) -> bytes:
    coded = [text.encode() for text in (*texts, *(padding,) * (rows - len(texts)))]
    raw = b"".join(
        [_LENGTH.pack(rows), *(part for text in coded for part in (_LENGTH.pack(len(text)), text))]
    )
    if len(raw) > MAX_RAW_BYTES:
        raise SeitError(
            f"the strings of a block of {rows} samples take {len(raw)} bytes; at most "
            f"{MAX_RAW_BYTES} bytes fit: write fewer samples a block"
        )
    return _seal(zlib.compress(raw, 9, wbits=_GZIP_WINDOW))


def _seal(payload: bytes) -> bytes:
    return payload + _CHECKSUM.pack(google_crc32c.value(payload))


class _ColumnWriter:
    """Writes the chunks of one array into ``group``, which will be called ``folder``."""

    def __init__(self, group: Path, folder: Path, kind: Kind, chunking: Chunking) -> None:
        self._group = group
        self._folder = folder
        self._kind = kind
        self._blocks_per_shard = chunking.blocks_per_shard
        self._shard = 0
        self._places: list[tuple[int, int]] = []
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
                self._file = self._stack.enter_context(path.open("wb"))
            if chunk is not None:
                self._file.write(chunk)
        if chunk is None:
            self._places.append((_MISSING, _MISSING))
        else:
            self._places.append((self._position, len(chunk)))
            self._position += len(chunk)
        if len(self._places) == self._blocks_per_shard:
            self._finish()

    def _finish(self) -> None:
        absent = [(_MISSING, _MISSING)] * (self._blocks_per_shard - len(self._places))
        index = b"".join(_PLACE.pack(*place) for place in (*self._places, *absent))
        with explained_writes(self._folder):
            self._file.write(_seal(index))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._stack.close()
        self._shard += 1
        self._places, self._position = [], 0


def _document_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_flushed(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _list_split(partial: Path, group: str, chunking: Chunking) -> ZarrSplit:
    """Take the size and sha256 of every file of a group that is still under another name."""
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


class ZarrShard:
    """One shard of a split in a Zarr group, read one column of one block at a time.

    What a split needs of a shard, in whatever container: ``record``, its entry in the card;
    ``codec``; ``num_blocks``, ``samples_of(block)`` and ``rows_of(block)``, as the card promises
    them; ``open_block(block, kind)``, which returns as many entries as the block has samples (ids
    (n, H, W), labels int32 (n,), a tuple of n keys, a tuple of n mappings);
    ``open_token_rows(block, rows)``, ids of some of them; and ``open_packed(block)``, uint8 (n, S).
    They raise DamagedError, with the file and the block, on bytes that no writer wrote. Here what
    is not stored is 0, −1, "" and {}, and a verifier calls ``check_indexes()`` first.

    ``read`` and ``size`` take paths relative to the store and raise OSError for a file that is
    missing or cannot be read; ``read`` returns fewer bytes only where a file ends.
    """

    def __init__(
        self,
        record: ShardRecord,
        codec: Codec,
        *,
        group: str,
        shard: int,
        chunking: Chunking,
        has_metadata: bool,
        read: ReadRange,
        size: FileSize,
    ) -> None:
        self.record = record
        self.codec = codec
        self.first_row = shard * chunking.shard_rows
        self._chunking = chunking
        self._files = {
            kind: shard_file(group, kind, shard)
            for kind in _COLUMNS
            if has_metadata or kind is not Kind.METADATA
        }
        self._read = read
        self._size = size
        self._indexes: dict[Kind, list[tuple[int, int] | None]] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks that the card promises."""
        return -(-self.record.samples // self._chunking.block_rows)

    def samples_of(self, block: int) -> int:
        """Samples that the card promises in a block."""
        rows = self._chunking.block_rows
        return min(rows, self.record.samples - block * rows)

    def rows_of(self, block: int) -> range:
        """The numbers within the split of a block's samples."""
        start = self.first_row + block * self._chunking.block_rows
        return range(start, start + self.samples_of(block))

    def check_indexes(self) -> None:
        """Read the index of every column, as a verifier does before it reads the blocks.

        Raises:
            DamagedError: one is damaged or is not that of these blocks; the message names the file.
        """
        for kind in self._files:
            self._places(kind)

    def open_block(self, block: int, kind: Kind) -> Any:
        """Decode one column of a block: as many entries as the block has samples.

        Raises:
            DamagedError: it is not what was written; the message names file and block.
        """
        rows = self.samples_of(block)
        found = self._open(block, kind, lambda data: self._decode(kind, data, rows))
        return self._fill(kind, rows) if found is None else found

    def open_packed(self, block: int) -> npt.NDArray[np.uint8]:
        """The packed tokens of a block: uint8 (n, S)."""
        rows = self.samples_of(block)
        found: npt.NDArray[np.uint8] | None = self._open(
            block, Kind.TOKENS, lambda data: pad_rows(self.codec.decode_packed(data), rows)
        )
        if found is None:
            return np.zeros((rows, self.codec.layout.sample_bytes), np.uint8)
        return found

    def open_token_rows(
        self, block: int, rows: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.unsignedinteger]:
        """The ids (r, H, W) of the samples ``rows`` (r,) of a block, counted within it."""
        found: npt.NDArray[np.unsignedinteger] | None = self._open(
            block,
            Kind.TOKENS,
            lambda data: decode_rows(self.codec, data, rows, most=self.samples_of(block)),
        )
        return self._fill(Kind.TOKENS, len(rows)) if found is None else found

    def _decode(self, kind: Kind, data: bytes, rows: int) -> Any:
        chunk_rows = self._chunking.block_rows
        match kind:
            case Kind.TOKENS:
                return pad_rows(self.codec.decode(data), rows)
            case Kind.LABELS:
                return _decode_labels(data, chunk_rows=chunk_rows)[:rows]
            case Kind.KEYS:
                return _decode_strings(data, chunk_rows=chunk_rows, rows=rows)
            case _:
                return _decode_metadata(data, chunk_rows=chunk_rows, rows=rows)

    def _fill(self, kind: Kind, rows: int) -> Any:
        """What a column holds where nothing is stored."""
        layout = self.codec.layout
        match kind:
            case Kind.TOKENS:
                return np.zeros((rows, *layout.grid), layout.dtype)
            case Kind.LABELS:
                return np.full(rows, _NO_LABEL, np.int32)
            case Kind.KEYS:
                return ("",) * rows
            case _:
                return ({},) * rows

    def _open(self, block: int, kind: Kind, decode: Callable[[bytes], Any]) -> Any:
        """Decode the stored chunk of a block; None if it is left out."""
        place = self._places(kind)[block] if kind in self._files else None
        if place is None:
            return None
        file = self._files[kind]
        try:
            return decode(_read_exactly(self._read, file, *place))
        except DamagedError as error:
            rows = self.rows_of(block)
            raise DamagedError(
                f"{file}, block {block}: {error} (samples {rows[0]} to {rows[-1]}); `seit verify` "
                "lists all damage"
            ) from error

    def _places(self, kind: Kind) -> list[tuple[int, int] | None]:
        """Where the chunks of one array lie in its shard, (offset, size); None if left out."""
        if kind not in self._indexes:
            file = self._files[kind]
            most_bytes = MAX_FRAME_BYTES
            if kind is Kind.LABELS:
                most_bytes = _label_bytes(self._chunking.block_rows)
            try:
                self._indexes[kind] = self._read_places(file, most_bytes)
            except DamagedError as error:
                raise DamagedError(
                    f"{file} is no intact shard: {error}; restore it from a copy"
                ) from error
        return self._indexes[kind]

    def _read_places(self, file: str, most_bytes: int) -> list[tuple[int, int] | None]:
        index_bytes = _PLACE.size * self._chunking.blocks_per_shard + _CHECKSUM.size
        end = _file_bytes(self._size, file) - index_bytes
        if end < 0:
            raise DamagedError(f"it is shorter than its index of {index_bytes} bytes")
        index = _unseal(_read_exactly(self._read, file, end, index_bytes), "index")
        places = _parse_places(index, end=end, most_bytes=most_bytes)
        if any(place is not None for place in places[self.num_blocks :]):
            raise DamagedError(f"it holds more than the {self.num_blocks} blocks of the card")
        return places[: self.num_blocks]


def open_zarr_shards(
    records: Sequence[ShardRecord],
    codec: Codec,
    *,
    group: str,
    block_samples: int,
    has_metadata: bool,
    read: ReadRange,
    size: FileSize,
) -> tuple[ZarrShard, ...]:
    """The shards of the split in the folder ``group``, from the card's ``records`` of them.

    Nothing is read yet.

    Raises:
        DamagedError: no writer makes such records.
    """
    chunking = recorded_chunking(records, codec, group=group, block_samples=block_samples)
    return tuple(
        ZarrShard(
            record,
            codec,
            group=group,
            shard=shard,
            chunking=chunking,
            has_metadata=has_metadata,
            read=read,
            size=size,
        )
        for shard, record in enumerate(records)
    )


def recorded_chunking(
    records: Sequence[ShardRecord], codec: Codec, *, group: str, block_samples: int
) -> Chunking:
    """How a split was cut, from the card's ``records`` of its shards.

    Raises:
        DamagedError: no writer makes such records.
    """
    num_samples = sum(record.samples for record in records)
    blocks = -(-num_samples // block_samples)
    if len(records) > 1:
        blocks = records[0].samples // block_samples
    if blocks > MAX_SHARD_BLOCKS:
        raise DamagedError(
            f"{group}: shards of {blocks} blocks are over the limit of {MAX_SHARD_BLOCKS}; restore "
            "the store from a copy"
        )
    chunking = Chunking.plan(
        num_samples,
        block_samples=block_samples,
        shard_samples=max(1, blocks) * block_samples,
    )
    if chunking.block_rows * codec.layout.length > MAX_BLOCK_TOKENS:
        raise DamagedError(
            f"{group}: blocks of {chunking.block_rows} samples of {codec.layout.length} tokens are "
            "over the limits; restore the store from a copy"
        )
    expected = [
        (shard_file(group, Kind.TOKENS, shard), chunking.samples_of_shard(shard))
        for shard in range(min(chunking.num_shards, len(records) + 1))
    ]
    if [(record.file, record.samples) for record in records] != expected:
        raise DamagedError(
            f"{group}: the card's shards are not the files of a Zarr array that is cut evenly; "
            "restore the store from a copy"
        )
    return chunking


def check_zarr_group(
    records: Sequence[ShardRecord],
    codec: Codec,
    *,
    group: str,
    block_samples: int,
    classes: Sequence[str],
    has_metadata: bool,
    read: ReadRange,
    size: FileSize,
) -> None:
    """Check that the `zarr.json` files of a group describe the arrays that the card promises.

    ``ZarrShard`` does not read them: they are for Zarr libraries, which must find what seit finds.

    Raises:
        DamagedError: one is missing, is no JSON, or says something else; the message names it.
    """
    chunking = recorded_chunking(records, codec, group=group, block_samples=block_samples)
    documents = zarr_documents(chunking, codec=codec, classes=classes, has_metadata=has_metadata)
    for path, expected in documents.items():
        name = f"{group}/{path}"
        num_bytes = _file_bytes(size, name)
        if num_bytes > MAX_CARD_BYTES:
            raise DamagedError(
                f"{name} is larger than {MAX_CARD_BYTES} bytes; restore it from a copy"
            )
        try:
            found = parse_json(_read_exactly(read, name, 0, num_bytes).decode())
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{name} is no JSON ({error}); restore it from a copy") from error
        wrong = ", ".join(_differences(found, expected))
        if wrong:
            raise DamagedError(
                f"{name} does not describe what the card does ({wrong}); restore it from a copy"
            )


def _differences(found: Any, expected: Mapping[str, Any]) -> Iterator[str]:
    """The entries of a document that are missing, too many, or not as expected."""
    if not isinstance(found, dict):
        yield "it is no JSON object"
        return
    for name in sorted(found.keys() | expected.keys()):
        # 1, 1.0 and true are equal to Python, but not to a reader in another language.
        if name not in found or name not in expected:
            yield f"{name!r} is {'missing' if name in expected else 'unknown'}"
        elif json.dumps(found[name], sort_keys=True) != json.dumps(expected[name], sort_keys=True):
            yield f"{name!r} is another"


def pad_rows(column: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Add the rows of zeros that a writer may leave out at the end of a chunk.

    Raises:
        DamagedError: there are more than ``rows`` already.
    """
    if len(column) > rows:
        raise DamagedError(f"{len(column)} samples stand where {rows} were expected")
    if len(column) == rows:
        return column
    padded = np.zeros((rows, *column.shape[1:]), dtype=column.dtype)
    padded[: len(column)] = column
    return padded


def decode_rows(
    codec: Codec, data: bytes, rows: npt.NDArray[np.integer], *, most: int
) -> npt.NDArray[np.unsignedinteger]:
    """Decode the samples ``rows`` (r,) of a chunk, and only those: ids (r, H, W).

    Raises:
        DamagedError: the bytes are no frame of at most ``most`` samples.
    """
    # Read before the checksum is: codec.decode_rows refuses a frame whose count was changed.
    count = int.from_bytes(data[_FRAME_COUNT], "little")
    stored = rows < count
    decoded = codec.decode_rows(data, rows[stored])
    if count > most:
        raise DamagedError(f"{count} samples stand where {most} were expected")
    if stored.all():
        return decoded
    tokens_rHW = np.zeros((len(rows), *codec.layout.grid), dtype=decoded.dtype)
    tokens_rHW[stored] = decoded
    return tokens_rHW


def _file_bytes(size: FileSize, file: str) -> int:
    with _explained_reads(file):
        return size(file)


def _read_exactly(read: ReadRange, file: str, offset: int, size: int) -> bytes:
    with _explained_reads(file):
        data = read(file, offset, size)
    if len(data) != size:
        raise DamagedError(f"{file} ends too early")
    return data


@contextmanager
def _explained_reads(file: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise SeitError(f"{file} may not be read: {error.strerror or error}") from error
    except FileNotFoundError as error:
        raise DamagedError(f"{file} is missing; restore it from a copy") from error
    except OSError as error:
        raise DamagedError(f"{file} cannot be read: {error.strerror or error}") from error


def _parse_places(index: bytes, *, end: int, most_bytes: int) -> list[tuple[int, int] | None]:
    """Parse an index whose chunks fill the file up to ``end``, one right after another."""
    places: list[tuple[int, int] | None] = []
    position = 0
    for offset, size in _PLACE.iter_unpack(index):
        if offset == size == _MISSING:
            places.append(None)
            continue
        if offset != position or size > min(most_bytes, end - position):
            raise DamagedError(
                f"block {len(places)} claims {size} bytes at byte {offset} where one of at most "
                f"{min(most_bytes, end - position)} bytes would begin at byte {position}"
            )
        places.append((offset, size))
        position += size
    if position != end:
        raise DamagedError(f"its blocks end at byte {position}, not at its index at byte {end}")
    return places


def _unseal(data: bytes, what: str) -> bytes:
    """Check and cut off the CRC-32C at the end."""
    if len(data) < _CHECKSUM.size:
        raise DamagedError(f"the {what} of {len(data)} bytes are too short")
    payload = data[: -_CHECKSUM.size]
    (expected,) = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    found = google_crc32c.value(payload)
    if found != expected:
        raise DamagedError(f"the checksum of the {what} is {found:08x}, not {expected:08x}")
    return payload


def _label_bytes(chunk_rows: int) -> int:
    return 4 * chunk_rows + _CHECKSUM.size


def _decode_labels(data: bytes, *, chunk_rows: int) -> npt.NDArray[np.int32]:
    if len(data) != _label_bytes(chunk_rows):
        raise DamagedError(f"{chunk_rows} labels and a checksum do not take {len(data)} bytes")
    labels = np.frombuffer(_unseal(data, "labels"), dtype="<i4")
    return labels.astype(np.int32, copy=False)


def _decode_strings(data: bytes, *, chunk_rows: int, rows: int) -> tuple[str, ...]:
    raw = _gunzip(_unseal(data, "strings"))
    return _split_strings(raw, chunk_rows=chunk_rows, rows=rows)


def _decode_metadata(data: bytes, *, chunk_rows: int, rows: int) -> tuple[dict[str, Any], ...]:
    texts = _decode_strings(data, chunk_rows=chunk_rows, rows=rows)
    try:
        entries = tuple(parse_json(text) for text in texts)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"metadata are not JSON: {error}") from error
    if not all(isinstance(entry, dict) for entry in entries):
        raise DamagedError("metadata hold something else than one JSON object a sample")
    return entries


def _gunzip(payload: bytes) -> bytes:
    """Unfold one gzip member that states a size within the limits and keeps to it."""
    if len(payload) < _GZIP_OVERHEAD_BYTES:
        raise DamagedError(f"gzipped strings of {len(payload)} bytes are too short")
    (raw_bytes,) = _LENGTH.unpack(payload[-_LENGTH.size :])
    if raw_bytes > min(MAX_RAW_BYTES, _MAX_DEFLATE_RATIO * len(payload)):
        raise DamagedError(f"{len(payload)} gzipped bytes may not unfold to {raw_bytes}")
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        raw = inflater.decompress(payload, raw_bytes + 1)
    except zlib.error as error:
        raise DamagedError(f"strings do not unfold: {error}") from error
    if len(raw) != raw_bytes or not inflater.eof or inflater.unused_data:
        raise DamagedError(f"strings unfold to {len(raw)} bytes where they claim {raw_bytes}")
    return raw


def _split_strings(raw: bytes, *, chunk_rows: int, rows: int) -> tuple[str, ...]:
    """Take a chunk of ``chunk_rows`` strings apart and return the first ``rows``."""
    if len(raw) < _LENGTH.size or _LENGTH.unpack_from(raw)[0] != chunk_rows:
        raise DamagedError(f"a chunk does not say that it holds {chunk_rows} strings")
    bounds = []
    position = _LENGTH.size
    for _ in range(chunk_rows):
        start = position + _LENGTH.size
        if start > len(raw):
            raise DamagedError("the strings of a chunk end too early")
        position = start + _LENGTH.unpack_from(raw, position)[0]
        bounds.append((start, position))
    if position != len(raw):
        raise DamagedError("the string lengths of a chunk do not add up to its size")
    try:
        return tuple(raw[start:end].decode() for start, end in bounds[:rows])
    except UnicodeDecodeError as error:
        raise DamagedError(f"a chunk's strings are not UTF-8: {error}") from error
