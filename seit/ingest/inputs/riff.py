"""Correction of unknown or slightly wrong lengths in headers of uncompressed audio.

Writers to pipes state no length or the maximum, and many recorders are off by a few bytes; both
kinds of file are complete. A file is truncated if samples that its header states are missing.
(RIFF: Microsoft, "Multimedia Programming Interface", 1991; RF64/BW64: ITU-R BS.2088; AIFF: Apple,
1989; CAF: Apple, 2005; NIST SPHERE.)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Literal, NamedTuple

from seit.errors import UnreadableError
from seit.ingest.inputs.remarks import Remark

LEFTOVER = "data behind the end that its header states; it was left out"

_SLACK_BYTES = 256
"""Tolerated excess of a stated length: headers that count themselves, paddings."""
_UNKNOWN_BYTES = 0x7FFF_0000
"""Smallest size that marks a stream of unknown length."""
_LEFTOVER_BYTES = 4096
_MAX_CHUNKS = 4096
_NIST_FIELD = rb"%s -i (\d{1,18})\s"

Order = Literal["big", "little"]


class Chunk(NamedTuple):
    """Chunk of a RIFF or AIFF file: name, start of the body, and stated length."""

    kind: bytes
    start: int
    size: int


def settle_lengths(data: bytes, remark: Remark) -> bytes:
    """Return a file of uncompressed audio whose header states its true length.

    Raises:
        UnreadableError: samples that the header states are missing.
    """
    if data[:4] == b"BW64":
        data = b"RF64" + data[4:]  # the same layout under a newer name
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return _settle_wav(data, remark)
    for prefix, stated_end in _STATED_ENDS.items():
        if data.startswith(prefix):
            _check_end(data, stated_end(data))
    return data


def _settle_wav(data: bytes, remark: Remark) -> bytes:
    order = _order(data)
    chunks = list(_chunks(data, order))
    if not chunks or chunks[-1].kind != b"data":
        _check_end(data, 8 + int.from_bytes(data[4:8], order))
        return data
    _, start, size = chunks[-1]
    there = len(data) - start
    if data[:4] == b"RF64" and size == 0xFFFF_FFFF and chunks[0].kind == b"ds64":
        size = int.from_bytes(data[chunks[0].start + 8 : chunks[0].start + 16], "little")
        if size < 1 << 40:
            _check_end(data, start + size, unknown=1 << 40)
        return data
    end = start + size + (size & 1)
    if size == 0 and there and not _is_chunk(data, start, order):
        size, end = there, len(data)
    _check_end(data, start + size)
    if len(data) - end > _LEFTOVER_BYTES and not _is_chunk(data, end, order):
        remark(LEFTOVER)
    if size == chunks[-1].size and not _lacks_padding(chunks):
        return data
    return _rebuilt(data, chunks, min(size, there))


def _order(data: bytes) -> Order:
    return "big" if data[:4] in (b"RIFX", b"FORM") else "little"


def _chunks(data: bytes, order: Order) -> Iterator[Chunk]:
    """Yield the chunks through the samples, even if odd ones lack padding."""
    place = 12
    for _ in range(_MAX_CHUNKS):
        if place + 8 > len(data):
            return
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], order)
        yield Chunk(kind, place + 8, size)
        if kind in (b"data", b"SSND"):
            return
        place += 8 + size
        if size & 1 and (_is_chunk(data, place + 1, order) or not _is_chunk(data, place, order)):
            place += 1


def _is_chunk(data: bytes, place: int, order: Order) -> bool:
    """Return True if a chunk header may start at an offset."""
    name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], order)
    is_name = len(name) == 4 and all(32 <= letter < 127 for letter in name)
    return is_name and (size <= len(data) - place or size >= _UNKNOWN_BYTES or name == b"data")


def _lacks_padding(chunks: list[Chunk]) -> bool:
    return any(
        one.size & 1 and one.start + one.size + 8 == two.start for one, two in pairwise(chunks)
    )


def _rebuilt(data: bytes, chunks: list[Chunk], size: int) -> bytes:
    """Return a WAV file with only the format chunks and the samples."""
    order = _order(data)
    kept = [chunk for chunk in chunks if chunk.kind in (b"fmt ", b"fact")]
    parts = [data[chunk.start - 8 : chunk.start + chunk.size + (chunk.size & 1)] for chunk in kept]
    start = chunks[-1].start
    samples = [b"data", size.to_bytes(4, order), data[start : start + size]]
    body = b"".join([b"WAVE", *parts, *samples])
    return data[:4] + len(body).to_bytes(4, order) + body


def _check_end(data: bytes, end: int, *, unknown: int = _UNKNOWN_BYTES) -> None:
    if len(data) + _SLACK_BYTES < end < unknown or (len(data) < 44 <= end < unknown):
        raise UnreadableError(f"the file is truncated ({len(data):,} of {end:,} bytes)")


def _aiff_end(data: bytes) -> int:
    found = [chunk for chunk in _chunks(data, "big") if chunk.kind == b"SSND"]
    return found[0].start + found[0].size if found else 8 + int.from_bytes(data[4:8], "big")


def _au_end(data: bytes) -> int:
    order: Order = "big" if data[:1] == b"." else "little"
    return int.from_bytes(data[4:8], order) + int.from_bytes(data[8:12], order)


def _w64_end(data: bytes) -> int:
    return int.from_bytes(data[16:24], "little")


def _caf_end(data: bytes) -> int:
    place = 8
    for _ in range(_MAX_CHUNKS):
        size = int.from_bytes(data[place + 4 : place + 12], "big")
        if place >= len(data) or data[place : place + 4] == b"data":
            return place + 12 + size
        place += 12 + size
    return 0


def _nist_end(data: bytes) -> int:
    head = data[:1024]
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    found = [re.search(_NIST_FIELD % name, head) for name in names]
    frames, width, channels = (int(match[1]) if match else 0 for match in found)
    return 1024 + frames * width * (channels or 1) if b"shorten" not in head else 0


_STATED_ENDS: Mapping[bytes, Callable[[bytes], int]] = {
    b"FORM": _aiff_end,
    b".snd": _au_end,
    b"dns.": _au_end,
    b"riff": _w64_end,
    b"caff": _caf_end,
    b"NIST_1A": _nist_end,
}
