"""Is every byte of a store intact? Checks sizes, sha256 sums, blocks and keys; repairs from a copy.

A verification reads past any cache: it speaks of what the store itself holds.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, UsageError
from seit.shards.card import CARD_NAME, FileRecord
from seit.shards.copying import is_intact
from seit.shards.folders import (
    CachedFolder,
    Folder,
    LocalFolder,
    Location,
    RetryPolicy,
    open_folder,
)
from seit.shards.frames import Kind
from seit.shards.repair import Copy
from seit.shards.shard import Shard
from seit.shards.split import Split
from seit.shards.store import Store, open_store

MAX_DUPLICATES = 20
"""So many keys that occur twice are named in a split; more are counted."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: the file, the block where one is to blame, and the reason."""

    file: str
    block: int | None
    reason: str


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification, after any repair.

    Attributes:
        blocks: blocks looked at.
        bytes: bytes of the store.
        damage: all that is wrong.
        repaired: the files that were restored from a copy.
    """

    blocks: int
    bytes: int
    damage: tuple[Damage, ...]
    repaired: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing is damaged."""
        return not self.damage


def verify_store(
    location: Location,
    *,
    repair_from: Location | None = None,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Read every file of a store and check it.

    Files that the card does not name are damage too, apart from those of an unfinished job; they
    are never removed. So are keys that occur twice in a split; finding them takes about 16 bytes
    of memory a sample. Each shard of a remote store is fetched once, into a temporary file.

    Args:
        location: the store.
        repair_from: a copy of it. A damaged or missing file is replaced by the copy's if that has
            the size and sha256 that the card says. A damaged or missing card is replaced by the
            copy's if most of the files that this one names are here.
        storage_options: what fsspec's file system takes, for both places.
        retry: how long to try when a remote place does not answer, for both places.
        progress: called with (files done, files in all).

    Raises:
        UsageError: there is no store, or an intact one of a newer version.
        SeitError: a place did not answer or could not be written.
    """
    folder = open_folder(location, storage_options=storage_options, retry=retry)
    if isinstance(folder, CachedFolder):
        folder = folder.folder
    copy = None
    if repair_from is not None:
        copy = Copy(open_folder(repair_from, storage_options=storage_options, retry=retry))
    return _Verifier(folder, copy, progress).verify()


@dataclass
class _ShardReport:
    """What was found in a shard; ``key_hashes`` are those of each block whose keys are intact."""

    damage: list[Damage] = field(default_factory=list)
    num_blocks: int = 0
    key_hashes: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)


class _Verifier:
    """One verification of the store in ``folder``, with a copy to repair it from or without."""

    def __init__(
        self,
        folder: Folder,
        copy: Copy | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.folder = folder
        self.copy = copy
        self.progress = progress
        self.damage: list[Damage] = []
        self.repaired: list[str] = []
        self.num_blocks = 0
        self.files_done = 0
        self.num_files = 0

    def verify(self) -> Verification:
        """Check all files, then what holds between them."""
        store = self._open()
        if store is None:
            return Verification(0, 0, tuple(self.damage))
        self.num_files = len(store.card.records)
        for record in store.card.files:
            self._check(record, partial(_check_listed, store, record))
        for split in store.values():
            self._verify_split(split)
        self.damage += _strangers(store)
        return Verification(
            self.num_blocks, store.num_bytes, tuple(self.damage), tuple(self.repaired)
        )

    def _open(self) -> Store | None:
        """Open the store; if only its card is at fault, the copy's may take its place."""
        try:
            return open_store(self.folder, cache_bytes=0)
        except DamagedError as error:
            refusal = self.copy.restore_card(self.folder) if self.copy else ""
            if refusal is not None:
                self.damage.append(Damage(CARD_NAME, None, _with_refusal(str(error), refusal)))
                return None
        except UsageError:
            if not self.copy or self.folder.exists(CARD_NAME):
                raise
            if self.copy.restore_card(self.folder) is not None:
                raise
        self.repaired.append(CARD_NAME)
        return open_store(self.folder, cache_bytes=0)

    def _verify_split(self, split: Split) -> None:
        index = split.block_index.record
        if index and index.file not in {damage.file for damage in self.damage}:
            self.damage += _check_index(split, index)
        hashes = {}
        for number, shard in enumerate(split.shards):
            report = self._check(shard.record, partial(_check_shard, split, number))
            self.num_blocks += report.num_blocks
            for block, found in report.key_hashes.items():
                hashes[number, block] = found
        self.damage += _duplicate_keys(split, hashes)

    def _check(self, record: FileRecord, look: Callable[[], _ShardReport]) -> _ShardReport:
        """Look at a file; if it is damaged, look again after it was restored from the copy."""
        report = look()
        if report.damage and self.copy and not is_intact(self.folder, record):
            refusal = self.copy.restore(self.folder, record)
            if refusal is None:
                self.repaired.append(record.file)
                report = look()
            else:
                report.damage = [
                    replace(entry, reason=_with_refusal(entry.reason, refusal))
                    for entry in report.damage
                ]
        self.damage += report.damage
        self.files_done += 1
        if self.progress:
            self.progress(self.files_done, self.num_files)
        return report


def _with_refusal(reason: str, refusal: str) -> str:
    return f"{reason}; not repaired: {refusal}" if refusal else reason


def _check_listed(store: Store, record: FileRecord) -> _ShardReport:
    try:
        return _ShardReport(list(_check_file(store.folder, record)))
    except OSError as error:
        return _ShardReport([_unreadable(record, error)])


def _check_file(folder: Folder, record: FileRecord) -> Iterator[Damage]:
    size = folder.size(record.file)
    if size != record.bytes:
        yield _other_size(record, size)
    elif folder.sha256(record.file) != record.sha256:
        yield Damage(record.file, None, "does not match its sha256")


def _other_size(record: FileRecord, size: int) -> Damage:
    return Damage(record.file, None, f"has {size} bytes where the card says {record.bytes}")


def _unreadable(record: FileRecord, error: OSError) -> Damage:
    if isinstance(error, FileNotFoundError):
        return Damage(record.file, None, "is missing")
    return Damage(record.file, None, f"cannot be read: {error.strerror or error}")


def _check_index(split: Split, index: FileRecord) -> Iterator[Damage]:
    """An index whose bytes are those of the card still has to be the index of this split."""
    for number in range(len(split.shards)):
        try:
            split.block_index.places(number)
        except DamagedError as error:
            yield Damage(index.file, None, str(error))
            return


def _check_shard(split: Split, number: int) -> _ShardReport:
    record, folder = split.shards[number].record, split.store.folder
    try:
        size = folder.size(record.file)
        if size > record.bytes and not isinstance(folder, LocalFolder):  # too large to fetch
            return _ShardReport([_other_size(record, size)])
        with folder.fetched(record.file) as local:
            return _check_fetched(split, number, local)
    except OSError as error:
        return _ShardReport([_unreadable(record, error)])


def _check_fetched(split: Split, number: int, local: LocalFolder) -> _ShardReport:
    """Check a shard in a local folder: its sum, its tar headers and its blocks."""
    record, index = split.shards[number].record, split.block_index
    report = _ShardReport()
    whole = list(_check_file(local, record))
    headed = indexed = None
    try:
        headed = index.places_by_headers(number, local)
    except DamagedError as error:
        report.damage.append(Damage(record.file, None, str(error)))
    if index.record:
        try:
            indexed = index.places(number)
        except DamagedError:
            pass  # the index is reported as itself
        else:
            if headed and not np.array_equal(headed.sizes_n4, indexed.sizes_n4):
                blamed = record.file if whole else index.record.file
                reason = f"the index and the tar headers of {record.file} disagree"
                report.damage.append(Damage(blamed, None, reason))
    places = indexed or headed
    if places:
        _check_blocks(split.shards[number].within(local, places), len(split.classes), report)
    report.damage = report.damage or whole
    if whole:
        report.key_hashes.clear()  # keys of another file are not this split's
    return report


def _check_blocks(shard: Shard, num_classes: int, report: _ShardReport) -> None:
    report.num_blocks = shard.num_blocks
    for block in range(shard.num_blocks):
        for kind in shard.places[block].frames:
            try:
                column = shard.open_block(block, kind)
            except DamagedError as error:
                reason = str(error.__cause__ or error)
                report.damage.append(Damage(shard.record.file, block, reason))
                continue
            if kind is Kind.KEYS:
                report.key_hashes[block] = np.fromiter(map(hash, column), dtype=np.int64)
            if kind is Kind.LABELS:
                low, high = int(column.min()), int(column.max())
                if low < -1 or high >= num_classes:
                    reason = f"labels from {low} to {high} for {num_classes} classes"
                    report.damage.append(Damage(shard.record.file, block, reason))


def _duplicate_keys(
    split: Split, hashes: Mapping[tuple[int, int], npt.NDArray[np.int64]]
) -> Iterator[Damage]:
    """Keys that occur more than once, ``hashes`` being those of each (shard, block)."""
    if not hashes:
        return
    ordered = np.concatenate(list(hashes.values()))
    ordered.sort()
    suspected = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not suspected.size:
        return
    first_rows: dict[str, int] = {}
    num_found = 0
    for (number, block), found in hashes.items():
        shard = split.shards[number]
        places = np.flatnonzero(np.isin(found, suspected)).tolist()
        keys = shard.open_block(block, Kind.KEYS) if places else ()
        for place in places:
            row = shard.rows_of(block)[place]
            first = first_rows.setdefault(keys[place], row)
            num_found += first != row
            if first != row and num_found <= MAX_DUPLICATES:
                reason = f"the key {keys[place]!r} of sample {row} is that of sample {first} too"
                yield Damage(shard.record.file, block, reason)
    if num_found > MAX_DUPLICATES:
        reason = f"{num_found - MAX_DUPLICATES} more keys of split {split.name!r} occur twice"
        yield Damage(split.shards[0].record.file, None, reason)


def _strangers(store: Store) -> Iterator[Damage]:
    known = {CARD_NAME, *(record.file for record in store.card.records)}
    try:
        names = store.folder.names()
    except OSError:  # some servers give files but no lists of them
        return
    for name in names:
        if name not in known and not name.startswith("."):
            shown = os.fsencode(name).decode(errors="replace")
            yield Damage(shown, None, "is not named by the card")
