"""Base of folders: files by name, read whole or in ranges."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seit.shards.folders.local import LocalFolder

PART_BYTES = 8 << 20
"""Size of the parts in which whole files are read."""


@dataclass(frozen=True)
class Stamp:
    """Identity of the file under a name; it differs for another file of the same name.

    Attributes:
        numbers: the file system's numbers of the file and its folder.
        changed_ns: time of the file's last change by the file system's clock, in nanoseconds since
            1970. A later change within a short time may yield the same stamp.
    """

    numbers: tuple[int, ...]
    changed_ns: int


class Folder(ABC):
    """Place that holds files. Names are relative to it, with ``/`` between their parts.

    A missing file raises FileNotFoundError, another kind of entry in its place IsADirectoryError,
    any other fault of the file another OSError. Failures on the way to a remote place raise
    SeitError once retries are exhausted.
    """

    @abstractmethod
    def __str__(self) -> str:
        """Return the name of the place for messages, without secrets."""

    def locate(self, name: str) -> str:
        """Return the name of a file of the folder for messages."""
        return f"{self}/{name}"

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""

    @abstractmethod
    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset``, or all; fewer only at the end of the file."""

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, bypassing caches; None if that cannot return other bytes."""
        return self.read(name, offset, size)

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all files, including those in subfolders, sorted."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically.

        Raises:
            SeitError: it could not be written; the previous content is unchanged.
        """

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one of this name; return whether it was written.

        Of several writers at a time one succeeds, on disks and in object storage with conditional
        writes; elsewhere there is a moment between look and write.

        Raises:
            SeitError: it could not be written.
        """
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    @abstractmethod
    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Write the content of a local file with checksum ``sha256`` atomically.

        Raises:
            DamagedError: ``source`` has another checksum.
            SeitError: it could not be written; the previous content is unchanged.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file."""

    @abstractmethod
    def fetched(self, name: str) -> "AbstractContextManager[LocalFolder]":
        """Provide a local folder that holds this file under the same name, as a context manager."""

    @property
    def place(self) -> "Folder":
        """Folder without a cache or a seal around it."""
        return self

    def stamp(self, name: str) -> Stamp | None:  # noqa: ARG002
        """Return the stamp of a file; None if the place has no reliable one."""
        return None

    def exists(self, name: str) -> bool:
        """Return whether the file exists."""
        try:
            self.size(name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def parts(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in order, in parts of bounded size."""
        size = self.size(name)
        for offset in range(0, size, PART_BYTES):
            yield self.read(name, offset, min(PART_BYTES, size - offset))

    def sha256(self, name: str) -> str:
        """Return the sha256 of a file's content, in hexadecimal."""
        digest = hashlib.sha256()
        for part in self.parts(name):
            digest.update(part)
        return digest.hexdigest()


class WrappedFolder(Folder):
    """Wrapper of a folder; subclasses change some of its methods."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def place(self) -> Folder:
        """Innermost folder."""
        return self.folder.place

    def stamp(self, name: str) -> Stamp | None:
        """Return the stamp of a file; None if the place has no reliable one."""
        return self.folder.stamp(name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self.folder.size(name)

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset``, or all; fewer only at the end of the file."""
        return self.folder.read(name, offset, size)

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, bypassing caches; None if that cannot return other bytes."""
        return self.folder.reread(name, offset, size)

    def names(self) -> list[str]:
        """Return the names of all files, including those in subfolders, sorted."""
        return self.folder.names()

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically."""
        self.folder.write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one of this name; return whether it was written."""
        return self.folder.create(name, data)

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Write the content of a local file atomically."""
        self.folder.upload(name, source, sha256=sha256)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.folder.remove(name)

    def fetched(self, name: str) -> "AbstractContextManager[LocalFolder]":
        """Provide a local folder that holds this file under the same name, as a context manager."""
        return self.folder.fetched(name)
