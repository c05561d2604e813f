"""Folder on a local disk."""

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seit.errors import DamagedError
from seit.files import (
    PARTIAL_SUFFIX,
    create_file,
    explained_writes,
    inside,
    open_without_waiting,
    publish,
    write_atomically,
)
from seit.shards.folders.base import PART_BYTES, Folder, Stamp


class LocalFolder(Folder):
    """Folder at ``path``, called ``shown`` in messages if given."""

    def __init__(self, path: Path, *, shown: str | None = None) -> None:
        self.path = path
        self._shown = shown or str(path)

    def __str__(self) -> str:
        return self._shown

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        path = self.path / name
        status = path.stat()
        _check_plain(status.st_mode, path)
        return status.st_size

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset``, or all; fewer only at the end of the file."""
        path = self.path / name
        with open(path, "rb", opener=open_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check_plain(status.st_mode, path)
            available = max(0, status.st_size - offset)
            file.seek(offset)
            return file.read(available if size is None else min(size, available))

    def stamp(self, name: str) -> Stamp:
        """Return the stamp of a file: device, inode, size and times, and those of this folder.

        Opens the file, since only that makes network file systems ask the server.
        """
        path = self.path / name
        folder = self.path.stat()
        descriptor = open_without_waiting(str(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        _check_plain(status.st_mode, path)
        return Stamp(
            (
                folder.st_dev,
                folder.st_ino,
                folder.st_ctime_ns,
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            ),
            changed_ns=status.st_ctime_ns,
        )

    def reread(self, name: str, offset: int, size: int) -> bytes | None:  # noqa: ARG002
        """Return None: a disk does not corrupt bytes in transit."""
        return None

    def names(self) -> list[str]:
        """Return the names of all files, including those in subfolders, sorted."""
        return sorted(
            path.relative_to(self.path).as_posix()
            for path in self.path.rglob("*")
            if not path.is_dir()
        )

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a temporary name, flush it to the disk, and rename it."""
        path = inside(self.path, name)
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file under a temporary name and link it to its name, unless that is taken."""
        path = inside(self.path, name)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with create_file(partial) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(partial, path)
            except FileExistsError:
                return False
            finally:
                partial.unlink(missing_ok=True)
        return True

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Copy a local file under a temporary name, check it, and rename it."""
        path = inside(self.path, name)
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                digest = _copy(source, partial)
                if digest != sha256:
                    raise DamagedError(f"{source} does not match its checksum; it was not copied")
                publish(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def remove(self, name: str) -> None:
        """Remove a file."""
        inside(self.path, name).unlink()

    @contextmanager
    def fetched(self, name: str) -> Iterator["LocalFolder"]:
        """Provide the folder itself."""
        self.size(name)
        yield self


def _check_plain(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise IsADirectoryError(errno.EISDIR, "Not a plain file", str(path))


def _copy(source: Path, target: Path) -> str:
    """Copy a file, flush it to the disk, and return the sha256 of the copied bytes."""
    digest = hashlib.sha256()
    with source.open("rb") as old, create_file(target) as new:
        while part := old.read(PART_BYTES):
            digest.update(part)
            new.write(part)
        new.flush()
        os.fsync(new.fileno())
    return digest.hexdigest()
