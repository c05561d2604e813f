"""Replacement of a store such that a kill at any moment leaves the old or the new one.

``.STORE.deleting`` next to it holds a lock; ``new``, the store being made; ``old``, if folders
cannot be exchanged; and a record that exists from the completion of ``new`` until the replaced
store is removed. The record's seal shows whether STORE is already the new one.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from seit.documents import read_json
from seit.errors import DamagedError, SeitError, UsageError
from seit.files import PARTIAL_SUFFIX, explained_writes, write_atomically
from seit.locks import LOCK_NAME, is_locked, refuse_links, take_lock
from seit.shards import CARD_NAME, Card, LocalFolder, Store, read_card
from seit.store_folders import JOB_FOLDER
from seit.stores.exchange import exchange_folders

_RECORD_NAME = "record.json"
_MAX_RECORD_BYTES = 1 << 24


class Record(TypedDict):
    """Record of a complete store: the request, its seal, and the return value of the call."""

    request: str
    seal: str
    outcome: dict[str, Any]


def work_of(path: Path) -> Path:
    """Return the folder next to the store at ``path``, resolved, in which its successor is made."""
    return path.with_name(f".{path.name}.deleting")


@contextmanager
def held_store(path: Path) -> Iterator[tuple[Path, Record | None]]:
    """Lock the store at ``path``, resolved, to replace it.

    Yields:
        The work folder, and the record of an earlier call if the store is its result.

    Raises:
        SeitError: another call is running, or the old store could not be removed.
        UsageError: there is no store.
    """
    work = work_of(path)
    if not path.is_dir() and not work.is_dir():
        read_card(path)  # raises if there is no store
    with locked(work, path):
        yield work, end_earlier(path, work)


def put_in_place(store: Store, work: Path, *, request: str, outcome: Mapping[str, Any]) -> None:
    """Replace ``store`` by the finished store ``work/new``, and remove the old one.

    Args:
        store: the old store, by its resolved path.
        work: folder from :func:`held_store`.
        request: request for the new store.
        outcome: return value of the call, also for a repeated call after a kill.

    Raises:
        ChangedError: the old store changed meanwhile.
        SeitError: the disk is full, or the folders cannot be exchanged; the store is unchanged.
    """
    flush_folders(work / "new")
    store.sealed.check()  # files may have been linked, not read
    _exchange(store.path, work, request=request, outcome=outcome)


def put_over(
    path: Path, made: Path, work: Path, *, request: str, outcome: Mapping[str, Any]
) -> None:
    """Replace the folder of a store, perhaps damaged, by the finished store ``made`` next to it.

    Args:
        path: folder of the old store, resolved.
        made: folder of the new store, in the same folder.
        work: folder from :func:`held_store`.
        request: request for the new store.
        outcome: return value of the call, also for a repeated call after a kill.

    Raises:
        SeitError: the disk is full, or the folders cannot be exchanged; the old store is unchanged.
    """
    flush_folders(made)
    with explained_writes(path):
        shutil.copymode(path, made)
        made.rename(work / "new")
    _exchange(path, work, request=request, outcome=outcome)


def _exchange(path: Path, work: Path, *, request: str, outcome: Mapping[str, Any]) -> None:
    write_record(work, request, outcome, seal=read_card(work / "new").seal)
    replace_folder(path, work)
    end_earlier(path, work)


def is_half_replaced(path: Path) -> bool:
    """Return True if a kill between two renames left no folder at ``path``, resolved."""
    return not path.exists() and (work_of(path) / _RECORD_NAME).exists()


def check_replaceable(path: Path) -> None:
    """Refuse a store where a disk is mounted, which no other folder can replace.

    Args:
        path: the store's folder, resolved.

    Raises:
        UsageError: a disk is mounted there.
    """
    if path.exists() and path.stat().st_dev != path.parent.stat().st_dev:
        raise UsageError(
            f"a disk is mounted at {path}, and the new store is made next to the old one; move the "
            "store into a folder of that disk, or remove it first"
        )


def write_record(work: Path, request: str, outcome: Mapping[str, Any], *, seal: str) -> None:
    """Record that the store ``new`` with this seal is complete, its request, and the outcome.

    Raises:
        SeitError: the disk is full.
    """
    record = Record(request=request, seal=seal, outcome=dict(outcome))
    write_atomically(work / _RECORD_NAME, json.dumps(record).encode())


def replace_folder(path: Path, work: Path) -> None:
    """Replace the old store by the new one.

    Raises:
        SeitError: the replacement failed; the store is unchanged.
    """
    try:
        if not exchange_folders(path, work / "new"):
            path.rename(work / "old")
            (work / "new").rename(path)
    except OSError as error:
        if not path.exists():
            (work / "old").rename(path)
        (work / _RECORD_NAME).unlink()
        raise SeitError(
            f"{path} could not be replaced ({error.strerror or error}) and is unchanged; where a "
            "disk is mounted, move the store into a folder of it"
        ) from error
    _flush(path.parent)
    _flush(work)


def end_earlier(path: Path, work: Path) -> Record | None:
    """Complete or discard an earlier call in ``work``; return its record if it made this store.

    Raises:
        SeitError: the old store could not be removed.
    """
    record = _read_record(work)
    made = work / ("new" if record else "old")
    if not path.exists() and made.exists():  # killed between two renames
        with explained_writes(path):
            made.rename(path)
            _flush(path.parent)
    is_done = record is not None and read_card(path).seal == record["seal"]
    try:
        for name in ("new", "old", "packed", "shards"):
            with suppress(FileNotFoundError):
                shutil.rmtree(work / name)
        (work / _RECORD_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise SeitError(
            f"{work} could not be removed ({error.strerror or error}), which may hold samples that "
            "were deleted; make the same call again, or remove it"
        ) from error
    return record if is_done else None


def _read_record(work: Path) -> Record | None:
    try:
        found: Record = read_json(work / _RECORD_NAME, Record, max_bytes=_MAX_RECORD_BYTES)
    except DamagedError:
        return None
    return found


@contextmanager
def locked(work: Path, path: Path) -> Iterator[None]:
    """Lock the store against a second call; remove ``work`` unless it has unfinished work.

    Raises:
        SeitError: another call is running.
        UsageError: ``work`` is a link.
    """
    refuse_links(work)
    lock = take_lock(work / LOCK_NAME, busy=f"another call is changing {path}")
    try:
        yield
    finally:
        if not (work / _RECORD_NAME).exists() and not (work / "old").exists():
            shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def check_folder(path: Path, card: Card, *, reason: str) -> None:
    """Refuse a folder with files that would be lost with the old store, or that a job writes to.

    Args:
        path: the store's folder.
        card: card of the store.
        reason: text that follows "… which the card does not name and" in the message.

    Raises:
        UsageError: there are such files.
        SeitError: a job is running.
    """
    check_own_files(path, card, reason=reason)
    check_no_job(path)


def check_own_files(path: Path, card: Card, *, reason: str) -> None:
    """Refuse a folder with files that its card does not name, apart from those of a job.

    Args:
        path: the store's folder.
        card: card of the store.
        reason: text that follows "… which the card does not name and" in the message.

    Raises:
        UsageError: there are such files.
    """
    known = {CARD_NAME, *(record.file for record in card.records)}
    for name in LocalFolder(path).names():
        parts = Path(name).parts
        is_left_over = parts[0] == JOB_FOLDER or any(
            part.endswith(PARTIAL_SUFFIX) for part in parts
        )
        if name not in known and not is_left_over:
            raise UsageError(
                f"{path} holds {name!r}, which the card does not name and {reason}; move it "
                "elsewhere"
            )


def check_no_job(path: Path) -> None:
    """Refuse a store that a tokenize job is writing.

    Raises:
        SeitError: a job is running.
    """
    if is_locked(path / JOB_FOLDER / LOCK_NAME):
        raise SeitError(f"a job is writing {path}; wait for it or stop it first")


def check_not_replaced(path: Path) -> None:
    """Refuse a store that another call is replacing; a job checks after taking its own lock.

    Raises:
        SeitError: another call is running.
    """
    if is_locked(work_of(path) / LOCK_NAME):
        raise SeitError(f"another call is changing {path}; wait for it or stop it first")


def flush_folders(folder: Path) -> None:
    """Flush the names of all files below a folder to the disk."""
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _flush(path)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
