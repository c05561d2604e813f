"""Files behind a URL and their sizes.

Folders are listed in parallel, and each request is retried on its own.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from seit.errors import UsageError
from seit.ingest.sources.corpus import SPLIT_NAMES
from seit.ingest.sources.walk import Entry, is_ignored
from seit.shards import RemoteFolder

MAX_FILES = 100_000_000
"""Limit on the number of files, whose names alone would take tens of gigabytes."""
_REQUESTS = 16
_Found = TypeVar("_Found", bound=Iterable[Entry])


class ListedFolder(RemoteFolder):
    """Remote folder with the sizes of all files below it."""

    def sizes(self) -> dict[str, int]:
        """Return name → bytes of every visible file, sorted by name.

        Raises:
            UsageError: there are too many, or listing is not permitted.
            SeitError: the remote server does not respond.
        """
        filesystem, _ = self._connect()
        filesystem.invalidate_cache()
        found, folders = self._entries("")
        for name in [name for name in folders if name.lower() in SPLIT_NAMES]:
            files, below = self._entries(name)  # classes of a split are listed in parallel too
            found |= files
            folders = [*(folder for folder in folders if folder != name), *below]
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="list") as pool:
            for files in pool.map(self._below, folders):
                found |= files
                if len(found) > MAX_FILES:
                    raise UsageError(f"{self} holds more than {MAX_FILES:,} files; list a part")
        return {name: found[name] for name in sorted(found)}

    def entries(self, folder: str) -> list[Entry]:
        """Return the visible files and folders directly in ``folder``, by name."""
        files, folders = self._entries(folder)
        filesystem, _ = self._connect()
        filesystem.invalidate_cache()  # which would grow with the corpus
        found = [Entry(name.rpartition("/")[2], False, False, size) for name, size in files.items()]
        found += [Entry(name.rpartition("/")[2], True, False, -1) for name in folders]
        return sorted(found)

    def visit(self, read: Callable[[str, list[Entry]], _Found]) -> Iterator[tuple[str, _Found]]:
        """Yield what ``read`` makes of the path and entries of each folder, the root first.

        The path ends with a slash, or is empty for the root. Folders of one depth are listed in
        parallel; the memory is that of the largest ones.

        Raises:
            UsageError: listing is not permitted.
            SeitError: the remote server does not respond.
        """
        level = [""]
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="list") as pool:
            while level:
                found = pool.map(
                    lambda relative: read(relative, self.entries(relative.rstrip("/"))), level
                )
                below = []
                for relative, summary in zip(level, found, strict=True):
                    below += [f"{relative}{entry.name}/" for entry in summary if entry.is_folder]
                    yield relative, summary
                level = below

    def _entries(self, folder: str) -> tuple[dict[str, int], list[str]]:
        """Return the files and folders directly in ``folder``."""
        files: dict[str, int] = {}
        folders = []
        for entry in self._list("ls", folder):
            name = self._relative(entry["name"])
            if not name or is_ignored(name.rpartition("/")[2]) or name == folder:
                continue
            if entry["type"] == "directory":
                folders.append(name)
            else:
                files[name] = int(entry["size"])
        return files, folders

    def _below(self, folder: str) -> dict[str, int]:
        return {
            name: int(entry["size"])
            for entry in self._list("find", folder)
            for name in [self._relative(entry["name"])]
            if entry["type"] == "file" and not any(map(is_ignored, name.split("/")))
        }

    def _list(self, method: str, folder: str) -> list[dict[str, Any]]:
        path = self._path(folder).rstrip("/")
        try:
            found = self._retry.call(
                lambda: self._request(method, path, detail=True, seconds=self._retry.total_seconds),
                what=f"listing {self.locate(folder) if folder else self}",
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{error}; check the address and your credentials") from None
        entries = found.values() if isinstance(found, dict) else found
        return [entry for entry in entries if not entry["name"].endswith("/")]

    def _relative(self, path: str) -> str:
        _, root = self._connect()
        return path.removeprefix(root.rstrip("/")).strip("/")
