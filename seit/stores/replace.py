"""Replace a store by a new one so that a kill at any moment leaves the one or the other.

``.STORE.deleting`` next to it holds a lock; ``new``, the store that is made; ``old``, where folders
cannot be exchanged; and a record, which is there from when ``new`` is complete until what it
replaced is gone. By its seal it tells whether STORE is the new one already.
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
from seit.stores.exchange import exchange_folders

JOB_FOLDER = ".tokenize"
"""Where in a store's folder a tokenize job works; it may hold samples, and the job's lock."""
_RECORD_NAME = "record.json"
_MAX_RECORD_BYTES = 1 << 24


class Record(TypedDict):
    """Note on a store that is complete: what asked for it, its seal, and what the call returns."""

    request: str
    seal: str
    outcome: dict[str, Any]


def work_of(path: Path) -> Path:
    """Return the folder next to the store at ``path``, resolved, where its successor is made."""
    return path.with_name(f".{path.name}.deleting")


@contextmanager
def held_store(path: Path) -> Iterator[tuple[Path, Record | None]]:
    """Hold the store at ``path``, resolved, to replace it.

    Yields:
        The folder to work in, and the record of an earlier call that ended here, if the store is
        what that made.

    Raises:
        SeitError: another call is at work, or the old store could not be removed.
        UsageError: there is no store.
    """
    work = work_of(path)
    if not path.is_dir() and not work.is_dir():
        read_card(path)  # says that there is no store
    with locked(work, path):
        yield work, end_earlier(path, work)


def put_in_place(store: Store, work: Path, *, request: str, outcome: Mapping[str, Any]) -> None:
    """Put the finished store ``work/new`` in the place of ``store``, and remove that.

    Args:
        store: the old one, by its resolved path.
        work: of :func:`held_store`.
        request: what asked for the new one.
        outcome: what the call returns, for another that is made after a kill.

    Raises:
        ChangedError: the old store changed meanwhile.
        SeitError: the disk is full, or the folders cannot be exchanged; the store is as it was.
    """
    flush_folders(work / "new")
    store.sealed.check()  # files may have been linked, not read
    write_record(work, request, outcome, seal=read_card(work / "new").seal)
    replace_folder(store.path, work)
    end_earlier(store.path, work)


def write_record(work: Path, request: str, outcome: Mapping[str, Any], *, seal: str) -> None:
    """Note that the store ``new`` with this seal is complete, what asked for it, and the outcome.

    Raises:
        SeitError: the disk is full.
    """
    record = Record(request=request, seal=seal, outcome=dict(outcome))
    write_atomically(work / _RECORD_NAME, json.dumps(record).encode())


def replace_folder(path: Path, work: Path) -> None:
    """Put the new store in the place of the old one.

    Raises:
        SeitError: that cannot be done; the store is as it was.
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
            f"{path} could not be replaced ({error.strerror or error}) and is as it was; where a "
            "disk is mounted, move the store into a folder of it"
        ) from error
    _flush(path.parent)
    _flush(work)


def end_earlier(path: Path, work: Path) -> Record | None:
    """Finish what an earlier call left in ``work``; return its record if it made this store.

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
    """Hold the store against a second call; ``work`` goes unless something has to be ended.

    Raises:
        SeitError: another call is at work.
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
    """Refuse a folder with things in it that would go with the old store, or that a job writes to.

    Args:
        path: the store's folder.
        card: of the store.
        reason: why files that the card does not name are refused, "… which the card does not
            name and" this.

    Raises:
        UsageError: there are such files.
        SeitError: a job is under way.
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
    check_no_job(path)


def check_no_job(path: Path) -> None:
    """Refuse a store that a tokenize job is writing.

    Raises:
        SeitError: one is.
    """
    if is_locked(path / JOB_FOLDER / LOCK_NAME):
        raise SeitError(f"a job is writing {path}; wait for it or stop it first")


def check_not_replaced(path: Path) -> None:
    """Refuse a store that another call is replacing; a job looks after it has its own lock.

    Raises:
        SeitError: one is.
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
