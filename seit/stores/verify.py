"""Verification of every byte of a store: sizes, sha256 sums, blocks and keys; repair from a copy.

It bypasses any cache, so it reports on the store itself.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from seit.errors import DamagedError, UsageError
from seit.outcomes import Outcome
from seit.shards import (
    CARD_NAME,
    CODEBOOK_NAME,
    MEMBER_SUFFIXES,
    Codec,
    Damage,
    FileRecord,
    FileReport,
    Folder,
    Kind,
    LocalFolder,
    Location,
    RetryPolicy,
    SealedFolder,
    Split,
    SplitIndex,
    Store,
    ZarrGroup,
    check_file,
    check_shard_file,
    check_zarr_group,
    duplicate_keys,
    open_folder,
    open_store,
)
from seit.stores.card import CARD_PAGE_NAME
from seit.stores.copy import is_intact
from seit.stores.repair import Copy
from seit.stores.replace import check_no_job, locked, work_of

__all__ = ["Damage", "Verification", "verify_store"]


@dataclass(frozen=True, repr=False)
class Verification(Outcome):
    """Outcome of a verification, after any repair.

    Attributes:
        blocks: blocks checked.
        bytes: bytes of the store.
        damage: remaining damage.
        repaired: files restored from a copy.
    """

    blocks: int
    bytes: int
    damage: tuple[Damage, ...]
    repaired: tuple[str, ...] = ()

    recorded = ("ok", "blocks", "bytes", "repaired", "damaged")

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Entries of ``damage``, under its name in the record."""
        return self.damage

    @property
    def ok(self) -> bool:
        """True if nothing is damaged."""
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

    Files that the card does not name, apart from those of an unfinished job, also count as damage,
    but are never removed. So do duplicate keys in a split; finding them takes about 16 bytes of
    memory per sample. Each shard of a remote store is fetched once, into a temporary file.

    Args:
        location: the store.
        repair_from: a copy of it. A damaged or missing file is replaced by the copy's if that has
            the size and sha256 of the card. A damaged or missing card is replaced by the copy's if
            most of the files named in the copy's card exist here.
        storage_options: options of fsspec's file system, for store and copy.
        retry: retry policy for unresponsive servers, for store and copy.
        progress: callback that receives (files done, total files).

    Raises:
        UsageError: there is no store, or an intact one of a newer version; or ``repair_from`` holds
            no copy of it.
        ChangedError: another store replaced it meanwhile; nothing was restored after that.
        SeitError: a server did not respond, a file could not be written, or, with ``repair_from``,
            another call is changing the store.
    """
    folder = open_folder(location, storage_options=storage_options, retry=retry).place
    if repair_from is None:
        return _Verifier(folder, None, progress).verify()
    copy = Copy(open_folder(repair_from, storage_options=storage_options, retry=retry))
    with _held(folder):
        return _Verifier(folder, copy, progress).verify()


@contextmanager
def _held(folder: Folder) -> Iterator[None]:
    """Lock a local store against calls that would replace it, if possible."""
    with ExitStack() as stack:
        if isinstance(folder, LocalFolder):
            path = folder.path.resolve()
            with suppress(UsageError):  # its parent folder is not writable
                stack.enter_context(locked(work_of(path), path))
            check_no_job(path)
        yield


class _Verifier:
    """Verification of the store in ``folder``, with an optional copy to repair it from."""

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
        self.sealed: SealedFolder | None = None
        self.num_blocks = 0
        self.files_done = 0
        self.num_files = 0

    def verify(self) -> Verification:
        """Check all files, then the consistency between them."""
        store = self._open()
        if store is None:
            return Verification(0, 0, tuple(self.damage))
        self.sealed = store.sealed
        if self.copy is not None:
            self.copy.check_is_copy(self.folder, store.card.records)
        self.num_files = len(store.card.records)
        columns = {
            record
            for split in store.values()
            for shard in split.shards
            for record in shard.files.values()
        }
        for record in store.card.files:
            if record not in columns:
                self._check(record, partial(check_file, self.folder, record))
        self._check_codebook(store)
        codec = self._find_codec(store)
        for split in store.values():
            self._verify_split(store, split, codec)
        self.damage += _strangers(store)
        store.sealed.check()
        return Verification(
            self.num_blocks, store.num_bytes, tuple(self.damage), tuple(self.repaired)
        )

    def _open(self) -> Store | None:
        """Open the store; if only its card is damaged, the copy's may replace it."""
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

    def _check_codebook(self, store: Store) -> None:
        try:
            _ = store.codebook
        except DamagedError as error:
            if CODEBOOK_NAME not in self._damaged_files():
                self.damage.append(Damage(CODEBOOK_NAME, None, str(error)))

    def _find_codec(self, store: Store) -> Codec | None:
        """Return the codec of the tokens; None, which skips their check, if its tables are lost."""
        try:
            return store.codec
        except DamagedError as error:
            if CODEBOOK_NAME not in self._damaged_files():
                self.damage.append(Damage(CODEBOOK_NAME, None, str(error)))
            return None

    def _damaged_files(self) -> set[str]:
        return {entry.file for entry in self.damage}

    def _verify_split(self, store: Store, split: Split, codec: Codec | None) -> None:
        self.damage += _check_plan(store, split, codec, self._damaged_files())
        kinds = [kind for kind in MEMBER_SUFFIXES if codec or kind is not Kind.TOKENS]
        hashes = {}
        for number, shard in enumerate(split.shards):
            for record in dict.fromkeys(shard.files.values()):
                look = partial(
                    check_shard_file,
                    shard,
                    record,
                    num_classes=len(split.classes),
                    kinds=kinds,
                )
                report = self._check(record, look)
                self.num_blocks += report.num_blocks
                for block, found in report.key_hashes.items():
                    hashes[number, block] = found
        self.damage += duplicate_keys(split, hashes)

    def _check(self, record: FileRecord, look: Callable[[], FileReport]) -> FileReport:
        """Check a file; if it is damaged, restore it from the copy and check again."""
        report = look()
        if report.damage and self.copy and not is_intact(self.folder, record):
            assert self.sealed is not None, "files are checked of an open store"
            self.sealed.check()
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


def _check_plan(
    store: Store, split: Split, codec: Codec | None, damaged: set[str]
) -> Iterator[Damage]:
    """Yield errors in a split's index or `zarr.json` files, which can be wrong despite the seal.

    Files in ``damaged`` are already reported and left out.
    """
    if store.card.container == "zarr":
        if codec is None:
            return
        group = ZarrGroup.of(store.card, split.name)
        for file, error in check_zarr_group(
            store.files, group, codec=codec, tables=store.tables, classes=store.classes
        ):
            if file not in damaged:
                yield Damage(file, None, str(error))
        return
    index = SplitIndex(store.files, store.card, split.name)
    if index.record and index.record.file not in damaged:
        for number in range(len(index.shards)):
            try:
                index.places(number)
            except DamagedError as error:
                yield Damage(index.record.file, None, str(error))
                return


def _strangers(store: Store) -> Iterator[Damage]:
    known = {CARD_NAME, CARD_PAGE_NAME, *(record.file for record in store.card.records)}
    try:
        names = store.folder.names()
    except OSError:  # some servers serve files but cannot list them
        return
    for name in names:
        if name not in known and not name.startswith("."):
            shown = os.fsencode(name).decode(errors="replace")
            yield Damage(shown, None, "is not named by the card")
