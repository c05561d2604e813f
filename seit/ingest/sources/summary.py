"""Summaries of folders: all that a layout and a plan need, in memory that files do not add to."""

from collections.abc import Iterable, Iterator
from itertools import chain

from seit.ingest.sources.corpus import shuffle_rank
from seit.ingest.sources.media import EXTENSIONS, is_shard, is_side_file
from seit.ingest.sources.metadata import METADATA_NAMES
from seit.ingest.sources.walk import Entry, Remarks, as_text, scan

_EXAMPLES = 4
"""Files of a kind that the summary of a top folder names: three, and one that says "more"."""
_HELD = 256
_NAMED = (*METADATA_NAMES, "store.json")
RANKS = 1 << 64
"""Number of ranks of keys."""


class FolderSummary:
    """Summary of the files in a folder, with the folders in it.

    Iterating yields its folders and a few files of each kind, by name: enough for the meaning of a
    folder and for messages about it.

    Attributes:
        num_files: visible files directly in it.
        num_bytes: their bytes.
        media: modality → number of files that are named so.
        names: sum of the ranks of their keys modulo 2^64.
        sizes: sum of ranks times sizes in bytes, modulo 2^64.
        has_odd_names: whether a name is not UTF-8.
        shards: names of its tars, Parquet and Arrow files.
    """

    __slots__ = (
        *("num_files", "num_bytes", "names", "sizes", "media", "has_odd_names", "shards"),
        *("_folders", "_files"),
    )

    def __init__(self, relative: str, entries: Iterable[Entry]) -> None:
        self.num_files = self.num_bytes = self.names = self.sizes = 0
        self.media: dict[str, int] = {}
        self.has_odd_names = False
        self.shards: list[str] = []
        self._folders: list[Entry] = []
        self._files: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.is_folder:
                self._folders.append(entry)
            else:
                self._add(relative, entry)
        self._folders.sort()
        self._files = {
            kind: sorted(held)[: _EXAMPLES if relative.count("/") < 2 else 1]
            for kind, held in self._files.items()
        }

    def _add(self, relative: str, entry: Entry) -> None:
        path = f"{relative}{entry.name}"
        key = as_text(path)
        rank = shuffle_rank(key.encode())
        self.num_files += 1
        self.num_bytes += max(entry.num_bytes, 0)
        self.names = (self.names + rank) % RANKS
        self.sizes = (self.sizes + rank * (entry.num_bytes + 1)) % RANKS
        suffix = entry.name.rpartition(".")[2].lower()
        kind = "side" if is_side_file(entry.name) else "other"
        for modality, extensions in EXTENSIONS.items():
            if suffix in extensions:
                self.media[modality] = self.media.get(modality, 0) + 1
                kind = modality
        if key != path:
            self.has_odd_names = True
            kind = "odd"
        if entry.name.lower() in _NAMED:
            kind = "named"
        if is_shard(entry.name):
            self.shards.append(entry.name)
        held = self._files.setdefault(kind, [])
        held.append(entry)
        if len(held) == _HELD:
            held.sort()
            del held[_EXAMPLES:]

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(chain(self._folders, *self._files.values())))

    def __reversed__(self) -> Iterator[Entry]:
        return reversed(list(self))

    @property
    def digest(self) -> tuple[int, int, int, int]:
        """Numbers that change with the names and sizes of the files."""
        return self.num_files, self.num_bytes, self.names, self.sizes


def summarize(path: str, relative: str, remarks: Remarks) -> FolderSummary:
    """Return the summary of a local folder."""
    return FolderSummary(relative, scan(path, relative, remarks))
