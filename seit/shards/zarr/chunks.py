"""Chunks of a group: a block's columns ↔ bytes, and the index of their places.

Legend: n rows of a chunk, r chosen ones of them, H W grid.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError
from seit.shards.blocks import Block, assert_fits, metadata_texts, parse_metadata
from seit.shards.codecs import Codec
from seit.shards.frames import MAX_RAW_BYTES, Kind, inflate

NO_LABEL = -1
NO_METADATA = "{}"
GZIP_LEVEL = 9
Place = tuple[int, int]
"""Offset and size of a chunk in its shard, in bytes."""
_MISSING = (1 << 64) - 1
_FRAME_COUNT = slice(8, 12)
"""Bytes of a frame that hold its number of samples."""
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_PLACE = struct.Struct("<QQ")
_GZIP_WINDOW = 31
_GZIP_OVERHEAD_BYTES = 18


def encode_chunks(block: Block, codec: Codec, block_rows: int) -> dict[Kind, bytes | None]:
    """Encode a block into its chunks by kind; None leaves a chunk out."""
    assert_fits(block, codec.layout)
    count = len(block.keys)
    labels = np.full(block_rows, NO_LABEL, dtype="<i4")
    labels[:count] = block.labels
    return {
        Kind.TOKENS: codec.encode(block.tokens),
        Kind.LABELS: _seal(labels.tobytes()),
        Kind.KEYS: _encode_strings(block.keys, padding="", rows=block_rows),
        Kind.METADATA: None
        if block.metadata is None
        else _encode_strings(metadata_texts(block.metadata), padding=NO_METADATA, rows=block_rows),
    }


def _encode_strings(texts: Sequence[str], *, padding: str, rows: int) -> bytes:
    coded = [text.encode() for text in (*texts, *(padding,) * (rows - len(texts)))]
    raw = b"".join(
        [_LENGTH.pack(rows), *(part for text in coded for part in (_LENGTH.pack(len(text)), text))]
    )
    if len(raw) > MAX_RAW_BYTES:
        raise SeitError(
            f"the strings of a block of {rows} samples take {len(raw)} bytes; at most "
            f"{MAX_RAW_BYTES} bytes fit: write fewer samples per block"
        )
    return _seal(zlib.compress(raw, GZIP_LEVEL, wbits=_GZIP_WINDOW))


def _seal(payload: bytes) -> bytes:
    """Append the CRC-32C."""
    return payload + _CHECKSUM.pack(google_crc32c.value(payload))


def pad_rows(column: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Append the rows of zeros that a writer may leave out at the end of a chunk.

    Raises:
        DamagedError: there are more than ``rows`` already.
    """
    if len(column) > rows:
        raise DamagedError(f"{len(column)} samples found; expected {rows} were expected")
    if len(column) == rows:
        return column
    padded = np.zeros((rows, *column.shape[1:]), dtype=column.dtype)
    padded[: len(column)] = column
    return padded


def decode_rows(
    codec: Codec, data: bytes, rows: npt.NDArray[np.integer], *, most: int
) -> npt.NDArray[np.unsignedinteger]:
    """Decode only the samples ``rows`` (r,) of a chunk: ids (r, H, W).

    Raises:
        DamagedError: the bytes are not a frame of at most ``most`` samples.
    """
    # Not verified yet: codec.decode_rows refuses a frame whose count was changed.
    count = int.from_bytes(data[_FRAME_COUNT], "little")
    stored = rows < count
    decoded = codec.decode_rows(data, rows[stored])
    if count > most:
        raise DamagedError(f"{count} samples found; expected {most} were expected")
    if stored.all():
        return decoded
    tokens_rHW = np.zeros((len(rows), *codec.layout.grid), dtype=decoded.dtype)
    tokens_rHW[stored] = decoded
    return tokens_rHW


def index_bytes(num_blocks: int) -> int:
    """Return the size of the index of so many chunks, in bytes."""
    return _PLACE.size * num_blocks + _CHECKSUM.size


def encode_index(places: Sequence[Place | None]) -> bytes:
    """Encode the places of chunks, None for one that is left out."""
    absent = (_MISSING, _MISSING)
    return _seal(b"".join(_PLACE.pack(*(place or absent)) for place in places))


def decode_index(data: bytes, *, end: int, most_bytes: int) -> list[Place | None]:
    """Decode an index whose chunks fill the file up to ``end``, one right after another.

    Raises:
        DamagedError: the checksum does not match, or chunks have gaps or exceed ``most_bytes``.
    """
    places: list[Place | None] = []
    position = 0
    for offset, size in _PLACE.iter_unpack(_unseal(data, "index")):
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
    """Check and remove the CRC-32C at the end."""
    if len(data) < _CHECKSUM.size:
        raise DamagedError(f"the {what} of {len(data)} bytes are too short")
    payload = data[: -_CHECKSUM.size]
    (expected,) = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    found = google_crc32c.value(payload)
    if found != expected:
        raise DamagedError(f"the checksum of the {what} is {found:08x}, not {expected:08x}")
    return payload


def label_bytes(chunk_rows: int) -> int:
    """Return the size of a chunk of labels, in bytes."""
    return 4 * chunk_rows + _CHECKSUM.size


def decode_labels(data: bytes, *, chunk_rows: int) -> npt.NDArray[np.int32]:
    """Decode a chunk of labels: int32 (n,).

    Raises:
        DamagedError: it is damaged.
    """
    if len(data) != label_bytes(chunk_rows):
        raise DamagedError(f"{chunk_rows} labels and a checksum do not take {len(data)} bytes")
    labels = np.frombuffer(_unseal(data, "labels"), dtype="<i4")
    return labels.astype(np.int32, copy=False)


def decode_strings(data: bytes, *, chunk_rows: int, rows: int) -> tuple[str, ...]:
    """Decode a chunk of keys: the first ``rows`` of its ``chunk_rows`` strings.

    Raises:
        DamagedError: it is damaged.
    """
    raw = _gunzip(_unseal(data, "strings"))
    return _split_strings(raw, chunk_rows=chunk_rows, rows=rows)


def decode_metadata(data: bytes, *, chunk_rows: int, rows: int) -> tuple[dict[str, Any], ...]:
    """Decode a chunk of metadata: the first ``rows`` of its ``chunk_rows`` mappings.

    Raises:
        DamagedError: it is damaged.
    """
    return parse_metadata(decode_strings(data, chunk_rows=chunk_rows, rows=rows))


def _gunzip(payload: bytes) -> bytes:
    """Decompress one gzip member whose stated size is within the limits and correct."""
    if len(payload) < _GZIP_OVERHEAD_BYTES:
        raise DamagedError(f"gzipped strings of {len(payload)} bytes are too short")
    (raw_bytes,) = _LENGTH.unpack(payload[-_LENGTH.size :])
    try:
        return inflate(payload, raw_bytes, what="a gzip member", wbits=_GZIP_WINDOW)
    except DamagedError as error:
        raise DamagedError(f"strings do not unfold: {error}") from error


def _split_strings(raw: bytes, *, chunk_rows: int, rows: int) -> tuple[str, ...]:
    """Split a chunk of ``chunk_rows`` strings and return the first ``rows``."""
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
