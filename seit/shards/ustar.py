"""Strict reader of tar headers: plain POSIX ustar files, whose layout is unambiguous.

Shards hold no links, folders, long names or pax records, so a header of any other kind than
expected is damage. Costs one read of 512 bytes per member, and no memory that a header could ask
for.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from seit.errors import DamagedError

RECORD_BYTES = 512
"""Size of a header; content is padded with zeros to a multiple of it."""
Read: TypeAlias = Callable[[int, int], bytes]
"""Read (offset, size) of a file; returns fewer bytes only at its end."""
_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(RECORD_BYTES)
_CHECKSUM = slice(148, 156)


@dataclass(frozen=True)
class Member:
    """Member of a tar: its name, and the offset and size of its content, in bytes."""

    name: str
    offset: int
    size: int


def list_members(read: Read, *, file_bytes: int) -> Iterator[Member]:
    """Yield the members of a tar of ``file_bytes`` bytes.

    Raises:
        DamagedError: the file is not a ustar of regular files, or its end is missing.
    """
    position = 0
    while (header := _header_at(read, position)) != _ZEROS:
        member = _parse(header, position)
        if member.offset + member.size > file_bytes:
            raise DamagedError(f"the file ends inside the member {member.name!r}")
        yield member
        position = member.offset + filled_up(member.size)
    _header_at(read, position + RECORD_BYTES)
    while chunk := read(position, _CHUNK_BYTES):
        if chunk.count(0) != len(chunk):
            raise DamagedError("something follows the end of the tar")
        position += len(chunk)


def filled_up(size: int) -> int:
    """Return the bytes that content of ``size`` bytes takes in a tar, without its header."""
    return -(-size // RECORD_BYTES) * RECORD_BYTES


def _header_at(read: Read, position: int) -> bytes:
    header = read(position, RECORD_BYTES)
    if len(header) != RECORD_BYTES:
        raise DamagedError("the file ends before the end of the tar")
    return header


def _parse(header: bytes, position: int) -> Member:
    unsigned = sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")
    if _octal(header[_CHECKSUM]) != unsigned:
        raise DamagedError(f"the tar header at byte {position} does not match its checksum")
    name = header[:100].partition(b"\0")[0]
    if header[257:262] != b"ustar" or header[156:157] not in (b"0", b"\0") or not name.isascii():
        raise DamagedError(f"the tar header at byte {position} is not that of a plain file")
    size = _octal(header[124:136])
    if size is None:
        raise DamagedError(f"the tar header at byte {position} states no size")
    return Member(name=name.decode("ascii"), offset=position + RECORD_BYTES, size=size)


def _octal(digits: bytes) -> int | None:
    match = re.fullmatch(rb" *([0-7]+)[ \0]*", digits)
    return int(match[1], 8) if match else None
