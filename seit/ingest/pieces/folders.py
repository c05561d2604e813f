"""Folders of files as pieces: shares of groups of folders, which workers list again.

The driver keeps a summary of each folder, never the names of files. A group is a set of folders of
one split, chosen by a hash of their paths, with files for about 16 pieces. Share k of n is the
files in a group whose keys have hashes in the k-th of n equal ranges. So

* a piece mixes all folders of its group in proportion, and the pieces of one group, in order, have
  the order of a listing: every stretch mixes their classes;
* pieces have about as many files as a shard may have samples, and rarely more;
* a folder with more files than 16 pieces is a group of its own, of one class if it is a class
  folder; each of its pieces lists all of it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import isqrt
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.sources.corpus import Draft, Kind, SourceFile, shown, shuffle_rank
from seit.ingest.sources.folder import meaning_of
from seit.ingest.sources.manifest import file_size
from seit.ingest.sources.remote import ListedFolder
from seit.ingest.sources.summary import RANKS, FolderSummary
from seit.ingest.sources.walk import as_text, file_names
from seit.lookahead import map_ahead
from seit.shards import is_url

_SHARES = 16
"""Pieces of a group, and so about how often a folder is listed."""
_PAGE_FILES = 1000
"""Files that a request to list a folder returns; a smaller folder takes a request too."""


class GroupFolder(NamedTuple):
    """Folder as it was found: its path with a final "/", and its files."""

    relative: str
    num_files: int
    names: int
    """Sum of the ranks of their keys modulo 2^64."""


@dataclass(frozen=True, slots=True)
class FolderGroup:
    """Folders whose files are divided among the same pieces.

    Attributes:
        folders: the folders.
        split: their split, if folders say so.
        fingerprint: sha256, hex, over their names, and the names and sizes of their files.
    """

    folders: tuple[GroupFolder, ...] = ()
    split: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class FolderPiece(Piece):
    """Share ``start`` of ``stop`` shares of a group of folders."""

    group: FolderGroup = FolderGroup()

    @property
    def file(self) -> SourceFile:
        """Place of the piece, whose name says nothing but the split."""
        return SourceFile(self.location, "", self.group.split or "")

    @property
    def identity(self) -> list[object]:
        """Facts that tell it from other pieces, and from itself before a change, as JSON."""
        return [self.group.fingerprint, self.start, self.stop]


@dataclass(frozen=True)
class FolderPieces:
    """Reader of shares of folders; see :class:`~seit.ingest.pieces.piece.PieceSource`.

    Attributes:
        root: absolute path or URL of the corpus.
        has_splits: whether the top folders are splits.
        repeats: whether keys may be equal, as those of odd names or of parts of a clip.
    """

    root: str
    has_splits: bool
    repeats: bool = False
    overhead: int = 0
    kind: Kind = "folder"
    mixes: bool = True

    def read(self, piece: Piece, findings: Findings) -> Iterator[Draft]:  # noqa: ARG002
        """Yield the files of a share, in the order of the hashes of their keys.

        Raises:
            UsageError: a folder cannot be listed, or has changed since the walk.
            SeitError: a remote server does not respond.
        """
        assert isinstance(piece, FolderPiece), "a piece of folders"
        remote = ListedFolder(self.root) if is_url(self.root) else None
        ranked = [
            entry
            for found in map_ahead(
                lambda folder: self._share(folder, piece, remote), piece.group.folders
            )
            for entry in found
        ]
        ranked.sort()
        for _, draft in ranked:
            yield draft

    def _share(
        self, folder: GroupFolder, piece: Piece, remote: ListedFolder | None
    ) -> list[tuple[int, Draft]]:
        """Return the files of a folder in a share, with the ranks of their keys."""
        split, class_name = meaning_of(folder.relative, has_splits=self.has_splits)
        chosen = []
        num_files = names = 0
        for name, size in self._files(folder.relative, remote):
            path = f"{folder.relative}{name}"
            key = as_text(path)
            rank = shuffle_rank(key.encode())
            num_files += 1
            names = (names + rank) % RANKS
            if rank * piece.stop // RANKS == piece.start:
                location = f"{self.root}/{path}"
                num_bytes = file_size(location) if size is None else size
                chosen.append((rank, Draft(key, split, class_name, location, num_bytes)))
        if (num_files, names) != (folder.num_files, folder.names):
            raise UsageError(
                f"{shown(f'{self.root}/{folder.relative}')} has changed since the job began; undo "
                "that, or begin again with --overwrite"
            )
        return chosen

    def _files(
        self, relative: str, remote: ListedFolder | None
    ) -> Iterator[tuple[str, int | None]]:
        """Yield the names of the files of a folder, with their bytes if these need no request."""
        if remote is not None:
            for entry in remote.entries(relative.rstrip("/")):
                if not entry.is_folder:
                    yield entry.name, entry.num_bytes
            return
        path = f"{self.root}/{relative}"
        try:
            for name in file_names(path):
                yield name, None
        except OSError as error:
            raise UsageError(f"{shown(path)} cannot be listed: {error.strerror}") from None


class _Counted(NamedTuple):
    """Folder of a split with files, in the order of groups."""

    split: str
    rank: int
    folder: GroupFolder
    num_bytes: int
    digest: tuple[int, ...]


def cut_folders(
    root: str, summaries: Iterable[tuple[str, FolderSummary]], *, has_splits: bool, files: int
) -> Iterator[FolderPiece]:
    """Yield the pieces of folders, of about ``files`` files each, split by split."""
    counted = sorted(
        _Counted(
            meaning_of(relative, has_splits=has_splits)[0] or "",
            shuffle_rank(as_text(relative).encode()),
            GroupFolder(relative, summary.num_files, summary.names),
            summary.num_bytes,
            summary.digest,
        )
        for relative, summary in summaries
        if summary.num_files
    )
    least = max(files - 4 * isqrt(files), files // 2, 1)
    for split, of_split in groupby(counted, key=lambda entry: entry.split):
        for group in _groups(of_split, files):
            num_files = sum(entry.folder.num_files for entry in group)
            digest = hashlib.sha256()
            for entry in group:
                facts = [entry.folder.relative, *entry.digest]
                digest.update(json.dumps(facts).encode())
            made = FolderGroup(
                tuple(entry.folder for entry in group), split or None, digest.hexdigest()
            )
            name = f"{as_text(group[0].folder.relative) or 'the folder'} and {len(group) - 1} more"
            num_bytes = sum(entry.num_bytes for entry in group)
            num_shares = -(-num_files // least)
            for share in range(num_shares):
                yield FolderPiece(name, root, num_bytes, share, num_shares, made)


def _groups(counted: Iterable[_Counted], files: int) -> Iterator[list[_Counted]]:
    """Yield neighbors with files for a piece at least, and listings of those of 16 pieces."""
    group: list[_Counted] = []
    held = listed = 0
    for entry in counted:
        group.append(entry)
        held += entry.folder.num_files
        listed += max(entry.folder.num_files, _PAGE_FILES)
        if held >= files and listed >= _SHARES * files:
            yield group
            group, held, listed = [], 0, 0
    if group:
        yield group
