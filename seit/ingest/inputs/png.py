"""Removal of PNG metadata that would make a decoder fail.

Pixels depend on few chunks (PNG, third edition, sections 5 and 11). Any other chunk that is
damaged, or larger than a decoder accepts, is dropped; the picture's own chunks are kept.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 1 << 20
_MAX_TEXT_BYTES = 1 << 20
_MAX_EXIF_BYTES = 1 << 20
_WITH_ORIENTATION = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of texts that may hold the orientation."""
_KEY_BYTES = {0: 2, 2: 6}
"""Length of the transparency chunk by color type; for palettes it varies."""


class Chunk(NamedTuple):
    """Chunk: name, body, all its bytes, and checksum validity."""

    kind: bytes
    body: bytes
    whole: bytes
    is_intact: bool


def without_odd_metadata(data: bytes) -> bytes:
    """Return a PNG without metadata that may break a decoder; unchanged if there is none."""
    if not data.startswith(SIGNATURE):
        return data
    color = data[25] if len(data) > 25 else 0
    kept = [chunk.whole for chunk in _chunks(data) if _is_needed(chunk, color)]
    return b"".join([SIGNATURE, *kept])


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks up to the end of the file or its truncation."""
    place = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        size = int.from_bytes(data[place : place + 4], "big")
        end = place + size + 12
        if end > len(data):
            yield Chunk(b"IDAT", b"", data[place:], is_intact=False)
            return
        kind, body = data[place + 4 : place + 8], data[place + 8 : end - 4]
        crc = zlib.crc32(body, zlib.crc32(kind))
        yield Chunk(kind, body, data[place:end], crc == int.from_bytes(data[end - 4 : end], "big"))
        if kind == b"IEND":
            return
        place = end


def _is_needed(chunk: Chunk, color: int) -> bool:
    if chunk.kind[:1].isupper():
        return True
    if not chunk.is_intact:
        return False
    if chunk.kind == b"tRNS":
        return len(chunk.body) == _KEY_BYTES.get(color, len(chunk.body))
    if chunk.kind == b"eXIf":
        return len(chunk.body) <= _MAX_EXIF_BYTES
    if chunk.kind in (b"tEXt", b"zTXt", b"iTXt"):
        keyword, _, rest = chunk.body.partition(b"\0")
        return keyword in _WITH_ORIENTATION and _is_short(chunk.kind, rest)
    return False


def _is_short(kind: bytes, rest: bytes) -> bool:
    """Return True if a text is short enough for decoders once decompressed."""
    packed = rest[1:]
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] == b"\0"):
        return len(rest) <= _MAX_TEXT_BYTES
    if kind == b"iTXt":
        packed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail
