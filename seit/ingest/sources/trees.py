"""Source as a tree of files, local or remote, with all that a listing needs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from seit.errors import UsageError
from seit.ingest.sources.braces import has_braces
from seit.ingest.sources.corpus import nearest, shown
from seit.ingest.sources.remote import ListedFolder
from seit.ingest.sources.remote_files import split_url
from seit.ingest.sources.summary import FolderSummary, summarize
from seit.ingest.sources.tables import TABLES
from seit.ingest.sources.walk import Entry, Remarks, visit, walk
from seit.shards import is_url

_REMOTE_FILE = re.compile(r"\.(tgz|tbz2?|txz|tar(\.(gz|bz2|xz|zst))?|zip|7z|rar)$", re.IGNORECASE)

_NOTHING = "{text} holds no files, or does not exist; check the address"


class LocalTree:
    """Local file or folder.

    Attributes:
        text: the path as given.
        clean_text: the path without redundant parts such as a final "/".
        location: the absolute path.
    """

    def __init__(self, text: str) -> None:
        self._path = Path(text)
        self.text = text
        self.clean_text = str(self._path)
        self.location = str(self._path.absolute())

    def is_file(self) -> bool:
        """True for a plain file."""
        return self._path.is_file()

    def is_pattern(self) -> bool:
        """True for a brace pattern that is not itself the name of a file or folder."""
        return not self._path.exists() and has_braces(self.text)

    def check_folder(self) -> None:
        """Check that the path is a folder.

        Raises:
            UsageError: it is missing, or something else.
        """
        if self._path.is_dir():
            return
        if self._path.exists():
            raise UsageError(f"{shown(self.text)} is neither a folder nor a plain file")
        parent = self._path.parent
        siblings = [item.name for item in parent.iterdir()] if parent.is_dir() else []
        hint = nearest(self._path.name, siblings)
        if not siblings:
            hint = f"; {shown(str(parent))} is missing too"
        raise UsageError(f"{shown(self.text)} does not exist{hint}")

    def walk(self, remarks: Remarks) -> Iterator[tuple[str, list[Entry]]]:
        """Yield the folders and their entries; see :func:`seit.ingest.sources.walk.walk`."""
        return walk(self.location, remarks)

    def summaries(self, remarks: Remarks) -> Iterator[tuple[str, FolderSummary]]:
        """Yield the folders in the order of :meth:`walk`, with summaries of their files."""
        return visit(self.location, remarks, summarize)

    def sizes_beside(self) -> None:
        """Return None: the size of a local file is looked up when it is named."""


class RemoteTree:
    """File or folder behind a URL, distinguished by name alone to avoid slow requests.

    Attributes:
        text: the URL as given.
        clean_text: the URL without a final "/".
        location: same as ``clean_text``.
    """

    def __init__(self, url: str) -> None:
        self.text = url
        self.clean_text = self.location = url.rstrip("/")
        self._name = split_url(self.location).name

    def is_file(self) -> bool:
        """True if the name is that of a table, tar or archive."""
        suffix = PurePosixPath(self._name).suffix.lower()
        return suffix in TABLES or _REMOTE_FILE.search(self._name) is not None

    def is_pattern(self) -> bool:
        """True for a brace pattern of tars or Parquet files."""
        return self._name.lower().endswith((".tar", ".parquet")) and has_braces(self.text)

    def check_folder(self) -> None:
        """Do nothing: the listing reports a missing folder."""

    def walk(self, remarks: Remarks) -> Iterator[tuple[str, list[Entry]]]:  # noqa: ARG002
        """Yield the folders and their entries, as for a local tree.

        Raises:
            UsageError: there are none, or too many.
            SeitError: the remote server does not respond.
        """
        sizes = ListedFolder(self.location).sizes()
        if not sizes:
            raise UsageError(_NOTHING.format(text=shown(self.text)))
        folders: dict[str, list[Entry]] = {"": []}
        for name, num_bytes in sizes.items():
            *parents, base = name.split("/")
            path = ""
            for parent in parents:
                below = f"{path}{parent}/"
                if below not in folders:
                    folders[below] = []
                    folders[path].append(Entry(parent, True, False, -1))
                path = below
            folders[path].append(Entry(base, False, False, num_bytes))
        yield from folders.items()

    def summaries(self, remarks: Remarks) -> Iterator[tuple[str, FolderSummary]]:  # noqa: ARG002
        """Yield the folders with summaries of their files, the root first.

        Raises:
            UsageError: there are none.
            SeitError: the remote server does not respond.
        """
        for relative, summary in ListedFolder(self.location).visit(FolderSummary):
            if not relative and next(iter(summary), None) is None:
                raise UsageError(_NOTHING.format(text=shown(self.text)))
            yield relative, summary

    def sizes_beside(self) -> Mapping[str, int]:
        """Return the bytes of every file in its folder and below."""
        return ListedFolder(self.location.rpartition("/")[0]).sizes()


Tree: TypeAlias = LocalTree | RemoteTree


def tree_at(source: str) -> Tree:
    """Return the tree at a path or URL."""
    return RemoteTree(source) if is_url(source) else LocalTree(source)
