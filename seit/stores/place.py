"""Building of a store next to its destination, and the final move."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seit.errors import UsageError
from seit.files import explained_writes, publish
from seit.locks import LOCK_NAME, NoLocksError, refuse_links, take_lock
from seit.shards import LocalFolder, Location, open_folder
from seit.store_folders import refuse_inside_store
from seit.stores.copy import copy_store
from seit.stores.sink import UNFINISHED_NAME

_LOG = logging.getLogger(__name__)


@contextmanager
def work_folder(target: Location, *, resumes: bool = False) -> Iterator[Path]:
    """Yield an empty work folder: next to a local target, else among temporary files.

    It is removed at the end; leftovers of a killed call are removed at the start. A local target
    is locked meanwhile; on a file system without locks, logs that and continues.

    Args:
        target: where the result will be.
        resumes: whether a remote target may hold an unfinished store, of whatever call.

    Raises:
        UsageError: ``target`` is neither new nor empty, lies in a store, or cannot be written.
        SeitError: another call is writing there.
    """
    place = open_folder(target)
    if not isinstance(place, LocalFolder):
        names = place.names()
        if names and not (resumes and UNFINISHED_NAME in names):
            raise UsageError(f"{place} is not empty; choose a new or empty place")
        with tempfile.TemporaryDirectory(prefix="seit-") as name:
            yield Path(name)
        return
    path = place.path.resolve()  # two names of one folder share a lock
    refuse_inside_store(place.path)
    _check_empty(place.path)
    work = path.with_name(f".{path.name}.unfinished")
    with _locked(work, path):
        _check_empty(place.path)  # another call may just have ended
        made = work / "new"
        with explained_writes(path):
            made.mkdir()
        yield made


@contextmanager
def locked_target(target: Location) -> Iterator[None]:
    """Lock a local target, which is written in place, against a second call.

    Raises:
        UsageError: it lies in a store, or cannot be written.
        SeitError: another call is writing there.
    """
    place = open_folder(target)
    if not isinstance(place, LocalFolder):
        yield
        return
    refuse_inside_store(place.path)
    path = place.path.resolve()  # two names of one folder share a lock
    with _locked(path.with_name(f".{path.name}.unfinished"), path):
        yield


def _check_empty(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not empty; choose a new or empty folder")


@contextmanager
def _locked(work: Path, path: Path) -> Iterator[None]:
    """Lock ``work``, which holds nothing else at the start and is removed at the end."""
    refuse_links(work)
    with explained_writes(path):
        work.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(work / LOCK_NAME, busy=f"another call is writing {path}")
    except NoLocksError as error:
        _LOG.warning("%s; a second call that writes there would not be noticed", error)
        lock = None
    try:
        _clear(work)
        yield
    finally:
        with suppress(OSError):
            _clear(work)
            # The lock last: what follows it may be another call's.
            (work / LOCK_NAME).unlink()
            work.rmdir()
        if lock is not None:
            os.close(lock)


def _clear(work: Path) -> None:
    """Remove all but the lock."""
    for entry in work.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK_NAME:
            with suppress(OSError):
                entry.unlink()


def place_store(store: Path, target: Location) -> None:
    """Move a finished local store to ``target``: as a whole, or not at all.

    Raises:
        SeitError: it cannot be written.
    """
    place = open_folder(target)
    if isinstance(place, LocalFolder):
        with explained_writes(place.path):
            publish(store, place.path.resolve())
    else:
        copy_store(store, target)
