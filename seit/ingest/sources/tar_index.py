"""Index of the members of a tar file, from headers alone.

Python's ``tarfile`` silently stops at a damaged header in mid-file; an index must not. This reader
supports what image shards use: ustar, GNU long names and sizes, and pax ``path`` and ``size``
records. Layout: POSIX.1-2017 *pax*, "ustar Interchange Format" and "pax Extended Header".
"""

import os
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from seit.errors import DamagedError, UsageError
from seit.ingest.sources.remote_files import RemoteFile, StreamedFile
from seit.shards import is_url

BLOCK_BYTES = 512
_PLAIN = (b"0", b"\0", b"7")  # 7: contiguous, treated as plain everywhere
_LINKS = (b"1", b"2")  # hard and symbolic

MAX_HEADER_BYTES = 1 << 20
"""Size limit of a long name or pax record block, in bytes."""

_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ", "xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
)


class Member(NamedTuple):
    """Plain file in a tar: bytes ``offset`` to ``offset + num_bytes`` of the tar are its content.

    The name is text with surrogate escapes for bytes that are not UTF-8. A link has the name of
    another member as its ``target``, and no content.
    """

    name: str
    offset: int
    num_bytes: int
    target: str | None = None


class _LocalFile:
    """Local file that is read in ranges."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.num_bytes = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)


class TarIndex:
    """Open tar file; iteration yields its plain-file members and links, in order.

    Folders and devices are skipped. After the iteration, ``is_ended`` tells whether the
    end-of-archive block was present.
    """

    def __init__(self, path: str, shown: str, *, streams: bool = False) -> None:
        """Open the tar at a path or URL; ``streams`` downloads all of it once, in order."""
        self.path = path
        self._shown = shown
        self._file: RemoteFile | StreamedFile | _LocalFile
        if is_url(path):
            self._file = StreamedFile(path) if streams else RemoteFile(path)
        else:
            self._file = _LocalFile(path)
        self._num_bytes = self._file.num_bytes
        self.is_ended = False

    def close(self) -> None:
        """Close the file; the index is unusable afterwards."""
        self._file.close()

    def read(self, member: Member) -> bytes:
        """Return the content of a member; the caller has checked its size."""
        return self._file.read(member.offset, member.num_bytes)

    def __iter__(self) -> Iterator[Member]:
        """Yield the members.

        Raises:
            UsageError: the file is not a tar, is compressed, or has sparse members.
            DamagedError: the file is truncated or corrupt; the message has the offset in bytes.
        """
        offset = 0
        long_name: bytes | None = None
        long_target: bytes | None = None
        long_size: int | None = None
        is_sparse = False
        while offset < self._num_bytes or offset == 0:
            start = offset
            header = self._file.read(offset, BLOCK_BYTES)
            if offset == 0:
                self._check_kind(header)
            if len(header) < BLOCK_BYTES:
                raise self._damaged(offset, "a header is cut short")
            if not any(header):
                self.is_ended = True
                return
            if not _is_checked(header):
                raise self._damaged(offset, "a header's checksum is wrong")
            size = _number(header[124:136])
            kind = header[156:157]
            if kind in _PLAIN and long_size is not None:
                size = long_size
            if size is None or size < 0:
                raise self._damaged(offset, "a header has no valid size")
            if kind in b"123456":  # links, devices, folders, FIFOs: no content follows
                size = 0
            offset += BLOCK_BYTES
            content, offset = offset, offset + -(-size // BLOCK_BYTES) * BLOCK_BYTES
            if content + size > self._num_bytes:
                missing = content + size - self._num_bytes
                raise self._damaged(start, f"the member there lacks {missing:,} bytes")
            if kind in b"LxKg":
                if size > MAX_HEADER_BYTES:
                    raise self._damaged(start, f"a name record of {size:,} bytes")
                record = self._file.read(content, size)
                if kind == b"L":
                    long_name = record.split(b"\0", 1)[0]
                elif kind == b"K":
                    long_target = record.split(b"\0", 1)[0]
                elif kind == b"x":
                    fields = _pax(record)
                    if fields is None:
                        raise self._damaged(start, "a pax record is malformed")
                    long_name = fields.get(b"path", long_name)
                    long_target = fields.get(b"linkpath", long_target)
                    if b"size" in fields:
                        text = fields[b"size"]
                        if not text.isdigit() or len(text) > 18:
                            raise self._damaged(start, "a pax size is not a number")
                        long_size = int(text)
                    is_sparse |= any(name.startswith(b"GNU.sparse") for name in fields)
                continue
            if is_sparse or kind == b"S":
                raise UsageError(f"{self._shown} has sparse members; write it without --sparse")
            name = _text(_name(header) if long_name is None else long_name)
            if kind in _PLAIN:
                if name and not (kind == b"\0" and name.endswith("/")):  # a folder, before ustar
                    yield Member(name, content, size)
            elif kind in _LINKS and name:
                target = header[157:257].split(b"\0", 1)[0] if long_target is None else long_target
                yield Member(name, 0, 0, _target(name, _text(target), is_hard=kind == b"1"))
            long_name = long_target = long_size = None

    def _check_kind(self, header: bytes) -> None:
        for magic, kind, tool in _COMPRESSED:
            if header.startswith(magic):
                raise UsageError(
                    f"{self._shown} is compressed ({kind}), so its images cannot be reached one by "
                    f"one; decompress it first, with {tool}"
                )
        if len(header) == BLOCK_BYTES and (not any(header) or _is_checked(header)):
            return
        if header[257:262] == b"ustar":
            raise self._damaged(0, "a header is cut short or its checksum is wrong")
        raise UsageError(f"{self._shown} is not a tar file ({self._num_bytes:,} bytes)")

    def _damaged(self, offset: int, what: str) -> DamagedError:
        return DamagedError(
            f"{self._shown} is damaged at byte {offset:,} of {self._num_bytes:,}: {what}; "
            "fetch or write it again"
        )


def _is_checked(header: bytes) -> bool:
    """Return True if the checksum, the byte sum with itself as eight spaces, matches.

    Historic writers summed signed bytes.
    """
    stored = _number(header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    if stored == total:
        return True
    high = sum(byte >= 128 for byte in header[:148] + header[156:])
    return stored == total - 256 * high


def _number(field: bytes) -> int | None:
    """Parse an octal field, or GNU's base-256 one (first bit set); None if it is neither."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:]) - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _target(name: str, target: str, *, is_hard: bool) -> str:
    """Return the name of a link's target member; symbolic links start at the link's folder."""
    folder = "" if is_hard or target.startswith("/") else posixpath.dirname(name)
    return posixpath.normpath(posixpath.join(folder, target))


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":  # GNU's "ustar " has times in place of POSIX's prefix
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _pax(record: bytes) -> dict[bytes, bytes] | None:
    """Parse "length key=value" lines; None if they are malformed."""
    fields = {}
    position = 0
    while position < len(record) and record[position]:
        space = record.find(b" ", position, position + 20)
        digits = record[position:space] if space > 0 else b""
        if not digits.isdigit():
            return None
        end = position + int(digits)
        key, equals, value = record[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(record) or not equals or record[end - 1 : end] != b"\n":
            return None
        fields[key] = value
        position = end
    return fields
