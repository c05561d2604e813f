"""Define the fuzz targets of `tools/fuzz/run.py`: every decoder, also behind its checksums.

The first two bytes of an input select how the rest is used: given to a decoder unchanged, with a
correct checksum, or inside an otherwise valid structure. A target may raise nothing but a
``SeitError``, and fails an assertion if two ways of reading disagree.

Shape letters: N samples, n chosen ones of them, H W grid, L = H·W tokens, S bytes per packed
sample.
"""

import atexit
import contextlib
import errno
import gzip
import io
import json
import lzma
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import google_crc32c
import numpy as np
from fuzz import programs, records
from fuzz.stores import fuzz_store, golden_files, sealed
from golden.make import GOLDEN, make_tables

import seit
from seit.errors import SeitError
from seit.shards import Card, Codec, FileRecord, Folder, LocalFolder, PackedCodec, TokenLayout
from seit.shards.blocks import decode_keys, decode_labels, decode_metadata
from seit.shards.card import read_card
from seit.shards.context import ContextCodec, ContextTables, reference
from seit.shards.context.codec import split_streams
from seit.shards.context.coder import Coder
from seit.shards.frames import Coding, Kind, decode_frame, encode_frame, seal_frame
from seit.shards.index import decode_index, index_name, read_frame_sizes
from seit.shards.packed import unpack_reference, unpack_rows
from seit.shards.tar_shard import open_tar_shards
from seit.shards.zarr import ZarrGroup, ZarrShard, check_zarr_group
from seit.shards.zarr.chunks import encode_index as encode_chunk_index
from seit.shards.zarr_codec import SeitCodec
from seit.stores.official import OfficialSplit, decode_escaped, encode_escaped, read_codebook
from seit.stores.official.splits import decoded_blocks, read_labels

Target = Callable[[int, int, bytes], None]
"""Takes the number of a case, the degree of repair of the bytes, and the bytes."""
CROSS_CHECK_EVERY = 64
"""Inputs per comparison of the compiled decoders with the slow ones."""
LAYOUTS = (
    TokenLayout((3, 5), 40),
    TokenLayout((2, 5), 2),
    TokenLayout((1, 7), 1000),
    TokenLayout((2, 3), 70_000),
    TokenLayout((1, 1), 256),
    TokenLayout((5, 1), 257),
    TokenLayout((3, 3), 391),
    TokenLayout((1, 3), 2**31),
)
CONTEXT_LAYOUTS = (
    TokenLayout((4, 7), 40),
    TokenLayout((1, 9), 2),
    TokenLayout((3, 2), 300),
    TokenLayout((2, 2), 1025),
)
_SMALL_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 14}]
"""A small dictionary; the default fills 3 MiB with zeros for every input."""
_inputs = count()


def run(target: Target, data: bytes) -> None:
    """Run a target, which may raise a ``SeitError``."""
    if len(data) < 2:
        return
    with contextlib.suppress(SeitError):
        target(data[0], data[1], data[2:])


class MemoryFolder(Folder):
    """Files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def __str__(self) -> str:
        return "memory"

    def size(self, name: str) -> int:
        """Return the bytes of a file."""
        return len(self._file(name))

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read a range."""
        data = self._file(name)
        return data[offset:] if size is None else data[offset : offset + size]

    def reread(self, name: str, offset: int, size: int) -> None:  # noqa: ARG002
        """Do nothing: the files cannot change."""
        return

    def names(self) -> list[str]:
        """Return all names."""
        return sorted(self.files)

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.files[name] = data

    def upload(self, name: str, source: Path, *, sha256: str) -> None:  # noqa: ARG002
        """Write a file."""
        self.files[name] = source.read_bytes()

    def remove(self, name: str) -> None:
        """Remove a file."""
        del self.files[name]

    def fetched(self, name: str) -> "AbstractContextManager[LocalFolder]":
        """Refuse: no target needs a local copy."""
        raise io.UnsupportedOperation(name)

    def _file(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        return self.files[name]


# Frames


def fuzz_frame(case: int, effort: int, data: bytes) -> None:
    """Fuzz frames of every kind: as given, with a correct checksum, or also a correct header."""
    kind = Kind(1 + case % len(Kind))
    decode = {
        Kind.TOKENS: PackedCodec(LAYOUTS[0]).decode,
        Kind.LABELS: decode_labels,
        Kind.KEYS: decode_keys,
        Kind.METADATA: decode_metadata,
        Kind.INDEX: decode_index,
    }[kind]
    match effort % 4:
        case 1:
            data = _with_checksum(data)
        case 2 if len(data) >= 4:
            number, lie, coding = struct.unpack_from("<HBB", data)
            payload = data[4:]
            data = seal_frame(
                kind,
                payload,
                count=number,
                raw_bytes=len(payload) + (lie if lie < 128 else 0),
                coding=Coding(coding % len(Coding)),
            )
        case 3 if data:
            data = encode_frame(kind, data[1:], count=data[0], coding=Coding.DEFLATE)
    column = decode(data)
    assert len(column) == struct.unpack_from("<I", data, 8)[0], (
        "the frame has another number of samples"
    )


def fuzz_packed(case: int, effort: int, data: bytes) -> None:
    """Fuzz packed tokens: all ways of reading them must agree."""
    layout = LAYOUTS[case % len(LAYOUTS)]
    codec = PackedCodec(layout)
    if effort % 4 == 0:
        frame = _with_checksum(data)
    else:
        number = len(data) // layout.sample_bytes
        payload = data[: number * layout.sample_bytes]
        frame = encode_frame(Kind.TOKENS, payload, count=number, coding=Coding.RAW)
    packed_NS = codec.decode_packed(frame)
    if effort % 4 == 1 and next(_inputs) % CROSS_CHECK_EVERY == 0:
        expected = unpack_reference(packed_NS, length=layout.length, num_codes=layout.num_codes)
        found = np.zeros_like(expected)
        largest = unpack_rows(packed_NS, np.arange(len(found)), found, num_codes=layout.num_codes)
        assert np.array_equal(found, expected), "the compiled loops decode other ids"
        if layout.num_codes < 1 << layout.bits:
            assert largest == expected.max(initial=0), "the compiled loops find another largest id"
    _check_tokens(codec, frame, codec.decode(frame))


def fuzz_context(case: int, effort: int, data: bytes) -> None:
    """Fuzz context streams: given ones, and those of tokens with one word changed."""
    layout = CONTEXT_LAYOUTS[case % len(CONTEXT_LAYOUTS)]
    codec = _context_codec(layout)
    match effort % 3:
        case 0:
            frame = _with_checksum(data)
        case 1:
            frame = _stream_frame(layout, 1 + effort // 3 % 9, data)
        case _:
            frame = _coded_frame(codec, effort // 3, data)
    is_whole = next(_inputs) % CROSS_CHECK_EVERY != 0 or _is_whole_by_both(codec, frame)
    tokens_NHW = codec.decode(frame)
    assert is_whole, "an incomplete stream was accepted"
    _check_tokens(codec, frame, tokens_NHW)


def _stream_frame(layout: TokenLayout, number: int, data: bytes) -> bytes:
    """Return a frame with the words of ``data`` split evenly into ``number`` streams."""
    words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2")
    sizes = np.array([len(part) for part in np.array_split(words, number)], dtype="<u2")
    return seal_frame(
        Kind.TOKENS,
        sizes.tobytes() + words.tobytes(),
        count=number,
        raw_bytes=number * layout.sample_bytes,
        coding=Coding.CONTEXT,
    )


def _coded_frame(codec: ContextCodec, change: int, data: bytes) -> bytes:
    """Return the frame of the tokens encoded in ``data``, perhaps with a byte changed."""
    layout = codec.layout
    number = len(data) // (2 * layout.length)
    ids = np.frombuffer(data, dtype="<u2", count=number * layout.length) % layout.num_codes
    tokens_NHW = ids.astype(layout.dtype).reshape(number, *layout.grid)
    frame = codec.encode(tokens_NHW)
    if not change:
        assert np.array_equal(codec.decode(frame), tokens_NHW), "tokens are not restored"
        return frame
    place = 20 + 31 * change % max(1, len(frame) - 24)
    return _with_checksum(frame[:place] + bytes([frame[place] ^ change]) + frame[place + 1 :])


def _is_whole_by_both(codec: ContextCodec, data: bytes) -> bool:
    """Return if all streams of a frame are complete; both decoders must agree."""
    frame = decode_frame(data, kind=Kind.TOKENS)
    if frame.coding is not Coding.CONTEXT or not frame.count:
        return True
    words, bounds = split_streams(frame)
    tables = _context_tables(codec.layout.num_codes)
    expected = reference.decode(words, bounds, codec.layout.grid, tables)
    found = codec._coder.decode(words, bounds, codec.layout.grid)
    assert np.array_equal(found[1], expected[1]), "the decoders disagree on complete streams"
    assert np.array_equal(found[0], expected[0]), "the decoders disagree on ids"
    return bool(expected[1].all())


def _check_tokens(codec: Codec, frame: bytes, tokens_NHW: np.ndarray) -> None:
    """Check that single rows, packed samples and a new frame agree with the decoded block."""
    layout = codec.layout
    assert tokens_NHW.dtype == layout.dtype, "another dtype"
    assert int(tokens_NHW.max(initial=0)) < layout.num_codes, "an id is not below K"
    if next(_inputs) % 4:
        return
    rows = np.arange(0, len(tokens_NHW), 2)
    assert np.array_equal(codec.decode_rows(frame, rows), tokens_NHW[rows]), "rows differ"
    again = codec.decode(codec.encode(tokens_NHW))
    assert np.array_equal(again, tokens_NHW), "tokens are not restored"


@cache
def _context_tables(num_codes: int) -> ContextTables:
    return make_tables(num_codes)


@cache
def _context_codec(layout: TokenLayout) -> ContextCodec:
    return ContextCodec(layout, _context_tables(layout.num_codes))


# Index, card, tables


def fuzz_index(case: int, effort: int, data: bytes) -> None:
    """Fuzz a block index: then read the blocks at its positions."""
    card = _card("packed-wds")
    number = case % len(card.splits["train"])
    if effort % 2 and data:
        record = card.splits["train"][number]
        num_blocks = -(-record.samples // card.block_samples)
        raw = data[: 16 * num_blocks].ljust(16 * num_blocks, b"\0")
        data = encode_frame(Kind.INDEX, raw, count=num_blocks, coding=Coding.RAW)
        card = replace(card, splits={"train": (record,)})
        number = 0
    else:
        data = _with_checksum(data)
    name = index_name("train")
    card = replace(card, files=(FileRecord(name, len(data), "0" * 64),))
    folder = MemoryFolder({**golden_files("packed-wds"), name: data})
    shard = open_tar_shards(folder, card, "train", lambda: PackedCodec(card.layout))[number]
    for block in range(shard.num_blocks):
        shard.find_damage(block)


def fuzz_card(case: int, effort: int, data: bytes) -> None:  # noqa: ARG001
    """Fuzz a card: as given, sealed, or written canonically and sealed."""
    if effort % 3:
        try:
            text = data.decode()
            if effort % 3 == 2:
                text = json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
            data = sealed(text)
        except (ValueError, RecursionError):
            return
    card = read_card(MemoryFolder({"store.json": data}))
    assert card.to_text().encode() == data, "the card differs after a round trip"
    for split in card.splits:
        if card.container == "zarr":
            ZarrGroup.of(card, split)
        else:
            open_tar_shards(MemoryFolder({}), card, split, lambda: PackedCodec(card.layout))


def fuzz_tables(case: int, effort: int, data: bytes) -> None:
    """Fuzz context tables: accepted ones must code any tokens."""
    num_codes = (2, 3, 5, 40)[case % 4]
    if effort % 4:
        size = _tables_bytes(num_codes)
        raw = (struct.pack("<BBHI", 1, 3, 96, num_codes) + data)[:size].ljust(size, b"\1")
        if effort % 4 > 1:  # valid paths, any probabilities
            paths = np.arange(num_codes, dtype="<u2").tobytes()
            raw = raw[:8] + paths + raw[8 + len(paths) :]
        data = lzma.compress(raw, check=lzma.CHECK_CRC32, filters=_SMALL_FILTERS)
    tables = ContextTables.from_bytes(data, num_codes)
    ids_NL = (np.arange(24, dtype=np.uint16) * 7 % num_codes).reshape(2, 12)
    words, sizes = Coder(tables).encode(ids_NL, (3, 4))
    ends = np.cumsum(sizes)
    found, whole = Coder(tables).decode(words, np.stack([ends - sizes, ends], axis=1), (3, 4))
    assert whole.all(), "a new stream is incomplete"
    assert np.array_equal(found.reshape(2, 12), ids_NL), "tokens are not restored"


@cache
def _tables_bytes(num_codes: int) -> int:
    """Return the size of the unpacked tables in bytes."""
    return len(lzma.decompress(make_tables(num_codes).to_bytes()))


# Containers


def fuzz_tar(case: int, effort: int, data: bytes) -> None:
    """Fuzz a shard without an index: with correct checksums of headers, or also of frames."""
    if effort % 3:
        data = _with_header_checksums(data)
    if effort % 3 == 2:
        data = _with_frame_checksums(data)
    card = _card("packed-wds")
    record = replace(card.splits["train"][0], file="x.tar", bytes=len(data), samples=1 + case % 6)
    card = replace(card, splits={"train": (record,)}, files=())
    folder = MemoryFolder({"x.tar": data})
    read_frame_sizes(folder, "x.tar")
    (shard,) = open_tar_shards(folder, card, "train", lambda: PackedCodec(card.layout))
    for block in range(shard.num_blocks):
        shard.find_damage(block)


def _with_header_checksums(data: bytes) -> bytes:
    tar = bytearray(data)
    for start, _ in _tar_members(data):
        header = tar[start : start + 512]
        header[148:156] = b" " * 8
        tar[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(tar)


def _with_frame_checksums(data: bytes) -> bytes:
    tar = bytearray(data)
    for start, size in _tar_members(data):
        if 24 <= size <= 4096:
            frame = slice(start + 512, start + 512 + size)
            tar[frame] = _with_checksum(bytes(tar[frame]))[:size]
    return bytes(tar[: len(data)])


def _tar_members(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the offsets of apparent headers, and their sizes."""
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            with contextlib.suppress(ValueError):
                yield start, int(data[start + 124 : start + 135], 8)


def fuzz_zarr(case: int, effort: int, data: bytes) -> None:
    """Fuzz a file of a group: its index, one of its chunks, or a document."""
    name = ("packed-zarr", "context-zarr")[case % 2]
    kind = Kind(1 + case // 2 % 4)
    match effort % 5:
        case 0:
            _read_column(name, kind, data[:-4] + _crc(data[:-4]))
        case 1:
            _read_chunk(name, kind, data)
        case 2:
            sealed = _with_checksum(data) if kind is Kind.TOKENS else data + _crc(data)
            _read_chunk(name, kind, sealed)
        case 3:
            zipped = gzip.compress(data, compresslevel=1, mtime=0)
            _read_chunk(name, kind, zipped + _crc(zipped))
        case _:
            _read_document(name, kind, data)


def _read_chunk(name: str, kind: Kind, chunk: bytes) -> None:
    """Read a column of two blocks: ``chunk``, and a missing one."""
    _read_column(name, kind, chunk + encode_chunk_index([(0, len(chunk)), None]))


def _read_column(name: str, kind: Kind, data: bytes) -> None:
    group, codec = _group(name), _codec(name)
    record = replace(group.files[kind][0], bytes=len(data))
    group = replace(group, files={**group.files, kind: (record, *group.files[kind][1:])})
    if kind is Kind.TOKENS:
        group = replace(group, shards=(record, *group.shards[1:]))
    folder = MemoryFolder({**golden_files(name), record.file: data})
    shard = ZarrShard(folder, group, 0, lambda: codec)
    shard.check_places(kind)
    for block in range(shard.num_blocks):
        column = shard.open_block(block, kind)
        assert len(column) == shard.samples_of(block), "another number of rows"
        rows = np.array([len(column) - 1])
        chosen = shard.open_columns(block, rows)
        if kind is Kind.TOKENS:
            assert np.array_equal(chosen.tokens, column[rows]), "rows differ"
            assert len(shard.open_packed(block)) == len(column), "another number of rows"


def _read_document(name: str, kind: Kind, data: bytes) -> None:
    group = _group(name)
    folder = MemoryFolder({**golden_files(name), f"train.zarr/{kind.name.lower()}/zarr.json": data})
    codec, classes = _codec(name), _card(name).classes
    for _ in check_zarr_group(folder, group, codec=codec, tables=codec.tables, classes=classes):
        pass
    try:
        document = json.loads(data)
        entry = document["codecs"][0]["configuration"]["codecs"][0]
    except (ValueError, RecursionError, LookupError, TypeError):
        return
    if isinstance(entry, dict):
        SeitCodec.from_dict(entry)


@cache
def _card(name: str) -> Card:
    return seit.open(GOLDEN / name / "store").card


@cache
def _codec(name: str) -> Codec:
    return seit.open(GOLDEN / name / "store").codec


@cache
def _group(name: str) -> ZarrGroup:
    return ZarrGroup.of(_card(name), "train")


# Official files


def fuzz_official(case: int, effort: int, data: bytes) -> None:
    """Fuzz the byte code, index, labels and codebooks of naver-ai/seit."""
    length = 1 + effort % 7
    match case % 16:
        case 0:
            suffix = (".ckpt", ".npy", ".safetensors")[effort % 3]
            read_codebook(_written("codebook" + suffix, data))
        case 1 | 2:
            labels = _written("label.txt", data)
            read_labels(OfficialSplit("x", labels, labels, labels), effort, None)
        case 3 | 4:
            _read_split(length, *_halves(data))
        case 5 | 6:
            first, second = _halves(data)
            zipped = gzip.compress(first, compresslevel=1), gzip.compress(second, compresslevel=1)
            _read_split(length, *zipped)
        case 7 | 8 | 9 if data:
            size = 8 * (1 + data[0] % 5)
            offsets = np.frombuffer(data[1 : 1 + size // 8 * 8].ljust(size, b"\0"), dtype="<i8")
            _check_escaped(data[1 + size :], offsets, length)
        case _:
            _check_escaped(data, _likely_offsets(data, length), length)


def _likely_offsets(data: bytes, length: int) -> np.ndarray:
    """Return the offsets of samples of ``length`` tokens each, until the bytes end."""
    offsets, position = [0], 0
    while position < len(data):
        for _ in range(length):
            position += 2 if data[position : position + 1] == b"\xff" else 1
        offsets.append(min(position, len(data)))
    return np.array(offsets, dtype=np.int64)


def _check_escaped(data: bytes, offsets: np.ndarray, length: int) -> None:
    raw = np.frombuffer(data, dtype=np.uint8)
    tokens_NL = decode_escaped(raw, offsets, length)
    coded, found = encode_escaped(tokens_NL)
    assert coded.tobytes() == data, "the re-encoded bytes differ"
    assert np.array_equal(found, offsets), "the offsets differ"


def _read_split(length: int, index: bytes, tokens: bytes) -> None:
    split = OfficialSplit("x", _written("data.gz", tokens), _written("index.gz", index))
    layout = TokenLayout((1, length), 391)
    for tokens_nHW in decoded_blocks(split, layout):
        assert int(tokens_nHW.max()) < layout.num_codes, "an id is not below K"


def _halves(data: bytes) -> tuple[bytes, bytes]:
    """Split bytes at the last separator, which fuzzers can move."""
    first, _, second = data.rpartition(b"|||")
    return first, second


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="seit-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _written(name: str, data: bytes) -> Path:
    path = _scratch() / name
    path.write_bytes(data)
    return path


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def _with_checksum(frame: bytes) -> bytes:
    """Return a frame with its checksum in the last four bytes."""
    return frame[:-4] + _crc(frame[:-4])


TARGETS: dict[str, Target] = {
    "frame": fuzz_frame,
    "packed": fuzz_packed,
    "context": fuzz_context,
    "index": fuzz_index,
    "card": fuzz_card,
    "tables": fuzz_tables,
    "tar": fuzz_tar,
    "zarr": fuzz_zarr,
    "official": fuzz_official,
    "store": fuzz_store,
    **records.TARGETS,
    **programs.TARGETS,
}
