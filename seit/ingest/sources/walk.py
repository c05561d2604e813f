"""Walk of all files below a folder that visits each physical folder once and never blocks."""

import heapq
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from seit.ingest.sources.corpus import examples

_SYSTEM_NAMES = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "network trash folder",
    "temporary items",
    "lost+found",
    "__pycache__",
}
"""Files and folders of operating systems, file servers and file managers, in lower case."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Remarks:
    """Things that a walk found but did not list."""

    special: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    unlistable: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return one warning line for each kind of remark."""
        lines = []
        if self.special:
            lines.append(f"left out, as they are not plain files: {examples(self.special)}")
        if self.repeated:
            found = examples(self.repeated)
            lines.append(f"left out, as these links lead to folders listed already: {found}")
        if self.unlistable:
            lines.append(f"folders that cannot be listed: {examples(self.unlistable)}")
        return lines


class Entry(NamedTuple):
    """Relevant directory entry; ``num_bytes`` is −1 for folders and broken links."""

    name: str
    is_folder: bool
    is_link: bool
    num_bytes: int


def is_ignored(name: str) -> bool:
    """Return True for a hidden name (leading dot) or one of a file manager."""
    return name.startswith(".") or is_system(name)


def is_system(name: str) -> bool:
    """Return True for a name that systems, file servers and file managers create."""
    return name.lower() in _SYSTEM_NAMES


def entries(path: str, relative: str, remarks: Remarks) -> list[Entry]:
    """Return the visible plain files and folders directly in ``path``, by name."""
    return sorted(scan(path, relative, remarks))


def scan(path: str, relative: str, remarks: Remarks) -> Iterator[Entry]:
    """Yield the visible plain files and folders directly in ``path``, in any order.

    Symbolic links count as their targets; a broken one as a file, so that reading it reports the
    fault. Devices, sockets and FIFOs cause a remark and are never opened.
    """
    try:
        with os.scandir(path) as found:
            for item in found:
                if is_ignored(item.name):
                    continue
                is_link = item.is_symlink()
                if not is_link and item.is_dir(follow_symlinks=False):
                    yield Entry(item.name, True, False, -1)
                    continue
                try:
                    status = item.stat()
                except OSError:
                    yield Entry(item.name, False, is_link, -1)
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Entry(item.name, False, is_link, status.st_size)
                elif stat.S_ISDIR(status.st_mode):
                    yield Entry(item.name, True, is_link, -1)
                else:
                    remarks.special.append(f"{relative}{item.name}")
    except OSError as error:
        remarks.unlistable.append(f"{relative or path} ({error.strerror})")


def file_names(path: str) -> Iterator[str]:
    """Yield the names of the files that :func:`scan` yields, without looking up their sizes.

    Raises:
        OSError: the folder cannot be listed.
    """
    with os.scandir(path) as found:
        for item in found:
            if not is_ignored(item.name) and (item.is_file() or _is_broken(item)):
                yield item.name


def _is_broken(item: "os.DirEntry[str]") -> bool:
    try:
        item.stat()
    except OSError:
        return True
    return False


def walk(root: str, remarks: Remarks) -> Iterator[tuple[str, list[Entry]]]:
    """Yield (relative path of a folder with a final "/", or "" for the root; its entries).

    Real folders come first, then those behind symbolic links, by name. A physical folder is yielded
    once, so links may form loops or lattices.
    """
    yield from visit(root, remarks, entries)


class HasEntries(Protocol):
    """Outcome of reading a folder, which has at least the entries that are folders, by name."""

    def __reversed__(self) -> Iterator[Entry]:
        """Yield entries, the last first."""


_Found = TypeVar("_Found", bound=HasEntries)


def visit(
    root: str, remarks: Remarks, read: Callable[[str, str, Remarks], _Found]
) -> Iterator[tuple[str, _Found]]:
    """Yield what ``read`` returns for each folder, in the order of :func:`walk`."""
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()  # a stack and a heap
    while folders or links:
        relative = folders.pop() if folders else heapq.heappop(links)
        path = f"{root}/{relative}"
        try:
            status = Path(path).stat()
        except OSError as error:
            remarks.unlistable.append(f"{relative} ({error.strerror})")
            continue
        identity = status.st_dev, status.st_ino
        if identity in seen:
            remarks.repeated.append(relative.rstrip("/"))
            continue
        seen.add(identity)
        found = read(path, relative, remarks)
        for entry in reversed(found):
            if entry.is_folder and entry.is_link:
                heapq.heappush(links, f"{relative}{entry.name}/")
            elif entry.is_folder:
                folders.append(f"{relative}{entry.name}/")
        yield relative, found


def as_text(name: str) -> str:
    """Return a file name as encodable text.

    In a name that is not UTF-8, each odd byte is written as %XX, and each % as %25.
    """
    if name.isascii() or not _SURROGATE.search(name):
        return name
    escaped = name.replace("%", "%25")
    return _SURROGATE.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", escaped)
