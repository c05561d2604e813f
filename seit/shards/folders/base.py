"""What every folder can do: files by name, whole or in ranges."""

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
"""A file is read whole in parts of this size."""


@dataclass(frozen=True)
class Stamp:
    """The sign of one file under a name: another file that takes the name has another.

    Attributes:
        numbers: what the file system says of the file and its folder.
        changed_ns: when the file was last changed, in nanoseconds since 1970, by the clock of the
            file system. A file that was changed a moment ago may yet get a twin of its stamp.
    """

    numbers: tuple[int, ...]
    changed_ns: int


class Folder(ABC):
    """A place that holds files. Names are relative to it, with ``/`` between their parts.

    A file that is missing is a FileNotFoundError, and another kind of entry in its place an
    IsADirectoryError; whatever else is wrong with it is another OSError. Trouble on the way to a
    remote place that goes on in spite of retries is a SeitError.
    """

    @abstractmethod
    def __str__(self) -> str:
        """Name the place in messages: without any secret."""

    def locate(self, name: str) -> str:
        """Name a file of the folder in messages."""
        return f"{self}/{name}"

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset`` on, or all; fewer only where the file ends."""

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, past any cache, or None where that cannot give other bytes."""
        return self.read(name, offset, size)

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all files, those in folders below included, sorted."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file: whole or not at all.

        Raises:
            SeitError: it could not be written; what was there is as it was.
        """

    @abstractmethod
    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Write the content of a local file whose checksum is ``sha256``: whole or not at all.

        Raises:
            DamagedError: ``source`` has another checksum.
            SeitError: it could not be written; what was there is as it was.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file."""

    @abstractmethod
    def fetched(self, name: str) -> "AbstractContextManager[LocalFolder]":
        """A local folder that holds this file under the same name, for the time of a ``with``."""

    @property
    def place(self) -> "Folder":
        """The folder itself, without a cache or a seal around it."""
        return self

    def stamp(self, name: str) -> Stamp | None:  # noqa: ARG002
        """The stamp of a file; None where the place has none to trust."""
        return None

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            self.size(name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def parts(self, name: str) -> Iterator[bytes]:
        """The content of a file from its beginning to its end, in parts of bounded size."""
        size = self.size(name)
        for offset in range(0, size, PART_BYTES):
            yield self.read(name, offset, min(PART_BYTES, size - offset))

    def sha256(self, name: str) -> str:
        """The sha256 of a file's content, in hexadecimal."""
        digest = hashlib.sha256()
        for part in self.parts(name):
            digest.update(part)
        return digest.hexdigest()


class WrappedFolder(Folder):
    """Another folder, some of whose methods a subclass changes."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def place(self) -> Folder:
        """The innermost folder."""
        return self.folder.place

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of a file; None where the place has none to trust."""
        return self.folder.stamp(name)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.folder.size(name)

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset`` on, or all; fewer only where the file ends."""
        return self.folder.read(name, offset, size)

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again, past any cache, or None where that cannot give other bytes."""
        return self.folder.reread(name, offset, size)

    def names(self) -> list[str]:
        """The names of all files, those in folders below included, sorted."""
        return self.folder.names()

    def write(self, name: str, data: bytes) -> None:
        """Write a file: whole or not at all."""
        self.folder.write(name, data)

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Write the content of a local file: whole or not at all."""
        self.folder.upload(name, source, sha256=sha256)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.folder.remove(name)

    def fetched(self, name: str) -> "AbstractContextManager[LocalFolder]":
        """A local folder that holds this file under the same name, for the time of a ``with``."""
        return self.folder.fetched(name)
