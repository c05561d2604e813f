"""Copying of stores between local and remote folders, with a check of every file.

Jobs write local folders: tokenize first, then copy the store to where it is read.
"""

from collections.abc import Callable, Mapping
from typing import Any

from seit.errors import DamagedError, UsageError
from seit.files import PARTIAL_SUFFIX
from seit.shards import (
    CARD_NAME,
    Card,
    FileRecord,
    Folder,
    LocalFolder,
    Location,
    RetryPolicy,
    SealedFolder,
    open_folder,
    read_card,
)
from seit.store_folders import refuse_inside_store


def copy_store(
    source: Location,
    target: Location,
    *,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copy a store to a new or empty folder, or resume an interrupted copy.

    The card is written last, so only a complete target is a store. Existing files are verified by
    sha256, which reads them, and not sent again.

    Args:
        source: the store.
        target: the folder to write.
        storage_options: options of fsspec's file system, for source and target.
        retry: retry policy for unresponsive servers, for source and target.
        progress: callback that receives (files done, total files).

    Returns:
        The bytes sent, including the card.

    Raises:
        UsageError: there is no store, or ``target`` holds something else or cannot be written.
        DamagedError: a file of the source does not match its card; ``seit verify`` says more.
        ChangedError: another store replaced the source meanwhile.
        SeitError: a server did not respond, or a disk is full.
    """
    old = open_folder(source, storage_options=storage_options, retry=retry).place
    new = open_folder(target, storage_options=storage_options, retry=retry)
    if isinstance(new, LocalFolder):
        refuse_inside_store(new.path)
    card = read_card(old)
    sealed = SealedFolder(old, card)
    records = card.records
    _check_target(new, card, origin=old)
    sent = 0
    for number, record in enumerate(records):
        if not is_intact(new, record):
            try:
                copy_file(old, new, record)
            except (OSError, DamagedError) as error:
                sealed.check()
                if isinstance(error, DamagedError):
                    raise
                raise DamagedError(
                    f"{old.locate(record.file)} cannot be read: {error.strerror or error}; "
                    "`seit verify` lists all damage"
                ) from error
            sent += record.bytes
        if progress:
            progress(number + 1, len(records))
    text = card.to_text().encode()
    new.write(CARD_NAME, text)
    return sent + len(text)


def copy_file(source: Folder, target: Folder, record: FileRecord) -> None:
    """Copy a file named by a card, unless it does not match the card.

    Raises:
        DamagedError: the source's file has another size or sha256.
        OSError: it cannot be read.
        SeitError: it cannot be written.
    """
    size = source.size(record.file)
    if size != record.bytes:
        raise DamagedError(
            f"{source.locate(record.file)} has {size} bytes where the card says {record.bytes}"
        )
    with source.fetched(record.file) as local:
        target.upload(record.file, local.path / record.file, sha256=record.sha256)


def is_intact(folder: Folder, record: FileRecord) -> bool:
    """Return True if a file exists with the size and sha256 of its record."""
    try:
        return folder.size(record.file) == record.bytes and (
            folder.sha256(record.file) == record.sha256
        )
    except OSError:
        return False


def _check_target(target: Folder, card: Card, *, origin: Folder) -> None:
    """Refuse a folder that holds anything but files of this store."""
    ours = {record.file for record in card.records}
    ours |= {name + PARTIAL_SUFFIX for name in (*ours, CARD_NAME)} | {CARD_NAME}
    strangers = [name for name in _list(target) if name not in ours]
    if strangers:
        raise UsageError(
            f"{target} already holds {strangers[0]!r}, which is not part of {origin}; choose a new "
            "or empty folder"
        )
    if target.exists(CARD_NAME) and read_card(target).seal != card.seal:
        raise UsageError(f"{target} already holds another store; choose a new or empty folder")


def _list(folder: Folder) -> list[str]:
    try:
        return folder.names()
    except FileNotFoundError:
        return []
