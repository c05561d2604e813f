"""Bounded reads of the bytes of an instance."""

import os
import stat
from pathlib import Path

from seit.errors import UnreadableError
from seit.ingest.sources.cells import read_cell
from seit.ingest.sources.corpus import Cell, Instance, shown
from seit.ingest.sources.remote_files import read_remote, remote_size
from seit.shards import is_url

MAX_FILE_BYTES = 1 << 30
"""Size limit of files, in bytes."""


def read_bytes(instance: Instance, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the file of an instance; thread-safe.

    Raises:
        UnreadableError: the file is gone, is not a plain file, is larger than ``max_bytes``, is
            shorter than when listed, or cannot be read.
        SeitError: a remote server does not respond, in spite of retries.
    """
    location = instance.location
    if isinstance(location, bytes):
        return location
    try:
        if isinstance(location, Cell):
            return read_cell(location, max_bytes=max_bytes)
        if is_url(location if isinstance(location, str) else location[0]):
            return _read_remote(location, instance.num_bytes, max_bytes)
        if isinstance(location, str):
            return _read(location, 0, None, max_bytes)
        return _read(*location, max_bytes)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableError(f"cannot be read: {reason}") from None


def size_of(instance: Instance) -> int:
    """Return the bytes of the file of an instance, requested if the listing did not find them.

    Raises:
        UnreadableError, SeitError: as in :func:`read_bytes`.
    """
    return instance.num_bytes if instance.num_bytes >= 0 else len(read_bytes(instance))


def _read_remote(location: str | tuple[str, int, int], num_bytes: int, max_bytes: int) -> bytes:
    if isinstance(location, str):
        url, offset, wanted = location, 0, num_bytes
        if wanted < 0:
            wanted = remote_size(url)
    else:
        url, offset, wanted = location
    if wanted > max_bytes:
        raise UnreadableError(f"{wanted:,} bytes is more than the limit of {max_bytes:,}")
    data = read_remote(url, offset, wanted) if wanted else b""
    if len(data) < wanted:
        missing = wanted - len(data)
        raise UnreadableError(f"{shown(url.rpartition('/')[2])} ends {missing:,} bytes early")
    return data


def _read(path: str, offset: int, size: int | None, max_bytes: int) -> bytes:
    # Without O_NONBLOCK, opening a file replaced by a FIFO since the listing would block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError("not a plain file")
        wanted = found.st_size if size is None else size
        if wanted > max_bytes:
            raise UnreadableError(f"{wanted:,} bytes is more than the limit of {max_bytes:,}")
        parts = []
        while wanted > 0 and (part := os.pread(descriptor, wanted, offset)):
            parts.append(part)
            offset += len(part)
            wanted -= len(part)
        if wanted > 0:
            raise UnreadableError(f"{shown(Path(path).name)} ends {wanted:,} bytes early")
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(descriptor)
