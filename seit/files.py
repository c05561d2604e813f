"""Atomic writes, and opening of regular files only.

A folder may be untrusted: no link in it leads a writer outside, and no named pipe blocks a reader
or writer.
"""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from typing_extensions import override

from seit.errors import SeitError, UsageError
from seit.store_folders import refuse_inside_store

PARTIAL_SUFFIX = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRONG_PATH = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary name, flush it to the disk, and rename it to ``path``.

    Raises:
        SeitError: the disk is full or cannot be written; ``path`` is unchanged.
    """
    with new_file(path) as file:
        file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name; at the end it is flushed and renamed to ``path``.

    If the body raises, the temporary file is removed and ``path`` is unchanged.

    Raises:
        SeitError: the disk is full or cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with explained_writes(path):
        try:
            with create_file(partial) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            publish(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading; follows a link to one.

    Anything else is refused: a FIFO would wait for a writer, and opening a device may have effects.

    Raises:
        OSError: there is none, or it is a folder, FIFO, socket or device.
    """
    _check_plain(path.stat().st_mode, path)
    # It may have been replaced in between.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_plain(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check_plain(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def create_file(path: Path) -> BinaryIO:
    """Open a new, empty file for writing; replaces a link of its name instead of following it.

    Raises:
        OSError: there is a folder, or the file cannot be created.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def inside(folder: Path, name: str) -> Path:
    """Return the path of the file ``name`` to write in ``folder``, and nowhere else.

    Raises:
        UsageError: the name is absolute, empty or holds ``..``, or a folder on the way is a link.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise UsageError(f"{name!r} is outside {folder}; nothing is written there")
    path = folder
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link, and what is written there would lie outside {folder}; put the "
                "folder itself there"
            )
    return path / parts[-1]


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking; a named pipe would otherwise wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_new_file(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a path that cannot take a new file, before work is spent on its content.

    Raises:
        UsageError: its folder is missing or a store's, or there is a file and ``overwrite`` is
            False.
    """
    refuse_inside_store(path)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists; name another file or remove it")


def publish(partial: Path, path: Path) -> None:
    """Rename a finished, flushed file to its final name and flush its folder."""
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def explained_writes(path: Path) -> Iterator[None]:
    """Turn the operating system's errors of a write to ``path`` into a ``SeitError``.

    Raises:
        UsageError: nothing can be written there, whatever the state of the disk.
        SeitError: the disk is full, or writing failed otherwise.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SeitError(
                f"the disk is full: {path} could not be written; free some space and run the "
                "same command again, finished work is kept"
            ) from error
        if error.errno in _WRONG_PATH:
            raise UsageError(
                f"{path} cannot be written ({error.strerror}); choose a path in a folder that you "
                "may write to"
            ) from error
        raise SeitError(f"{path} could not be written: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RangeFile(io.RawIOBase):
    """File object over a source that reads ranges.

    Args:
        read: takes an offset and a size in bytes; returns fewer bytes only at the end of the file.
        num_bytes: size of the file.
    """

    def __init__(self, read: Callable[[int, int], bytes], num_bytes: int) -> None:
        self._read = read
        self._num_bytes = num_bytes
        self._position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._num_bytes)
        self._position = max(0, start + offset)
        return self._position

    @override
    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._num_bytes - self._position))
        data = self._read(self._position, wanted) if wanted else b""
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
