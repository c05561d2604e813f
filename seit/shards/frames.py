"""Frames: the checksummed byte strings that tar members and Zarr chunks consist of.

A frame is ``magic "SEIT" | version u8 | kind u8 | coding u8 | 0 | count u32 | raw size u64 |
payload | CRC32C u32``, all little-endian; the checksum covers every byte before it. `raw size` is
the size of the decoded payload, so a reader can check it before allocating memory.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import google_crc32c

from seit.errors import DamagedError, SeitError

MAGIC = b"SEIT"
FRAME_VERSION = 1
MAX_RAW_BYTES = 1 << 28
"""Most bytes of a decoded payload: 256 MiB."""
MAX_FRAME_BYTES = MAX_RAW_BYTES + (1 << 20)
"""Most bytes of a frame: the largest raw size, even if deflate does not shrink it."""
MAX_COUNT = 1 << 16
"""Most samples in a block."""
_HEADER = struct.Struct("<4sBBBBIQ")
_CHECKSUM = struct.Struct("<I")
FRAME_OVERHEAD_BYTES = _HEADER.size + _CHECKSUM.size
_MAX_DEFLATE_RATIO = 1032


class Kind(IntEnum):
    """Content of a frame."""

    TOKENS = 1
    LABELS = 2
    KEYS = 3
    METADATA = 4
    INDEX = 5


class Coding(IntEnum):
    """Coding of the payload."""

    RAW = 0
    DEFLATE = 1
    CONTEXT = 2


_CODINGS = {
    Kind.TOKENS: (Coding.RAW, Coding.CONTEXT),
    Kind.LABELS: (Coding.RAW, Coding.DEFLATE),
    Kind.KEYS: (Coding.RAW, Coding.DEFLATE),
    Kind.METADATA: (Coding.RAW, Coding.DEFLATE),
    Kind.INDEX: (Coding.RAW,),
}
"""Codings allowed for each kind of frame."""


@dataclass(frozen=True)
class Frame:
    """Frame with a verified checksum.

    Attributes:
        kind: its content.
        count: number of samples.
        coding: coding of the payload.
        raw_bytes: size of the decoded payload.
        raw: decoded payload; for `CONTEXT`, whose decoding needs a codec's tables, the coded one.
    """

    kind: Kind
    count: int
    coding: Coding
    raw_bytes: int
    raw: bytes


def encode_frame(kind: Kind, raw: bytes, *, count: int, coding: Coding) -> bytes:
    """Return the bytes of a frame that holds ``raw`` for ``count`` samples.

    Raises:
        SeitError: the frame is too large for any reader.
    """
    if count > MAX_COUNT or len(raw) > MAX_RAW_BYTES:
        raise SeitError(
            f"the {kind.name.lower()} of a block of {count} samples take {len(raw)} bytes; at most "
            f"{MAX_COUNT} samples and {MAX_RAW_BYTES} bytes fit: write fewer samples per block"
        )
    payload = zlib.compress(raw, 9) if coding is Coding.DEFLATE else raw
    return seal_frame(kind, payload, count=count, raw_bytes=len(raw), coding=coding)


def seal_frame(kind: Kind, payload: bytes, *, count: int, raw_bytes: int, coding: Coding) -> bytes:
    """Return the bytes of a frame around an encoded ``payload``."""
    head = _HEADER.pack(MAGIC, FRAME_VERSION, kind, coding, 0, count, raw_bytes) + payload
    return head + _CHECKSUM.pack(google_crc32c.value(head))


def decode_frame(data: bytes, *, kind: Kind) -> Frame:
    """Check and decode a frame of the expected ``kind``.

    Raises:
        DamagedError: the bytes are not a valid frame, or the checksum does not match.
    """
    if len(data) < FRAME_OVERHEAD_BYTES:
        raise DamagedError(f"a {kind.name.lower()} frame of {len(data)} bytes is too short")
    if data[:4] != MAGIC:
        raise DamagedError(f"a {kind.name.lower()} frame begins with {data[:4]!r}, not {MAGIC!r}")
    (expected,) = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    found = google_crc32c.value(data[: -_CHECKSUM.size])
    if found != expected:
        raise DamagedError(
            f"the checksum of a {kind.name.lower()} frame is {found:08x}, not {expected:08x}"
        )
    _, version, found_kind, coding, reserved, count, raw_bytes = _HEADER.unpack_from(data)
    if version != FRAME_VERSION:
        raise DamagedError(
            f"frame version {version} is unknown; this version of seit reads {FRAME_VERSION}"
        )
    if found_kind != kind:
        raise DamagedError(f"found a frame of kind {found_kind}; expected {kind.name.lower()}")
    if reserved or coding not in _CODINGS[kind]:
        raise DamagedError(
            f"frame coding {coding} (flags {reserved}) is unknown; a newer version of seit "
            "may have written it"
        )
    if count > MAX_COUNT or raw_bytes > MAX_RAW_BYTES:
        raise DamagedError(f"a frame claims {count} samples in {raw_bytes} bytes: over the limits")
    payload = data[_HEADER.size : -_CHECKSUM.size]
    return Frame(
        kind=kind,
        count=count,
        coding=Coding(coding),
        raw_bytes=raw_bytes,
        raw=_unfold(payload, Coding(coding), raw_bytes),
    )


def _unfold(payload: bytes, coding: Coding, raw_bytes: int) -> bytes:
    if coding is Coding.CONTEXT:
        return payload
    if coding is Coding.RAW:
        if len(payload) != raw_bytes:
            raise DamagedError(f"a frame holds {len(payload)} bytes but claims {raw_bytes}")
        return payload
    return inflate(payload, raw_bytes, what="a frame")


def inflate(payload: bytes, raw_bytes: int, *, what: str, wbits: int = zlib.MAX_WBITS) -> bytes:
    """Decompress one zlib stream, or with ``wbits`` 31 one gzip member, of a claimed size.

    No more memory is taken than a valid stream of this length may need.

    Raises:
        DamagedError: the size is wrong or over the limit, or bytes follow; it names ``what``.
    """
    if raw_bytes > min(MAX_RAW_BYTES, _MAX_DEFLATE_RATIO * len(payload)):
        raise DamagedError(f"{what} of {len(payload)} bytes cannot unfold to {raw_bytes}")
    inflater = zlib.decompressobj(wbits=wbits)
    try:
        raw = inflater.decompress(payload, raw_bytes + 1)
    except zlib.error as error:
        raise DamagedError(f"{what} does not inflate: {error}") from error
    if len(raw) != raw_bytes or not inflater.eof or inflater.unused_data:
        raise DamagedError(f"{what} inflates to {len(raw)} bytes where it claims {raw_bytes}")
    return raw
