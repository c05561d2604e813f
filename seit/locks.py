"""Locks between processes: a locked file, which the operating system frees when its holder ends."""

import fcntl
import logging
import os
import platform
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seit.errors import SeitError, UsageError
from seit.files import explained_writes
from seit.store_folders import refuse_store

LOCK_NAME = "lock"
RUN_LOCK_NAME = ".lock"
"""Lock file of a folder of runs; present while a process works there."""
_ATTEMPTS = 20
_POLL_SECONDS = 0.002
_MAX_HOLDER_BYTES = 300
_LOG = logging.getLogger(__name__)


class NoLocksError(SeitError):
    """Error of a file system without locks."""


def take_lock(path: Path, *, busy: str) -> int:
    """Lock the file at ``path``, creating it and its folders if missing.

    Closing the returned descriptor frees the lock, and so does any end of the process. The file
    names the last process that held it.

    Args:
        path: path of the file.
        busy: beginning of the message if another process holds it.

    Returns:
        A file descriptor.

    Raises:
        SeitError: another process holds it, or the file cannot be created.
        NoLocksError: the file system has no locks.
    """
    for _ in range(_ATTEMPTS):
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                lock = os.open(path, flags, 0o644)
            except FileNotFoundError:
                continue  # the last holder is removing its folder
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            os.close(lock)
            raise UsageError(f"{path} is not a regular file; remove it")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, _MAX_HOLDER_BYTES, 0).decode("utf-8", "replace").strip()
            os.close(lock)
            process = f" ({holder})" if holder else ""
            raise SeitError(f"{busy}{process}; wait for it or stop it first") from None
        except OSError as error:
            os.close(lock)
            raise NoLocksError(
                f"{path} cannot be locked ({error.strerror}); choose a folder on a file system "
                "that has locks"
            ) from error
        if is_same_file(lock, path):
            with suppress(OSError):  # a full disk
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {platform.node()}".encode(), 0)
            return lock
        os.close(lock)
    raise SeitError(f"{busy}; wait for it or stop it first")


def is_locked(path: Path) -> bool:
    """Return True if a process holds the lock file at ``path``."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not wait_for_lock(descriptor, seconds=0)
    finally:
        os.close(descriptor)


def wait_for_lock(descriptor: int, *, seconds: float) -> bool:
    """Lock an open file, waiting up to ``seconds`` for its holder; returns False on a timeout."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold a lock that processes take in turn; freed when its holder ends."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def refuse_links(*folders: Path) -> None:
    """Refuse work folders that are links, whose targets would be emptied.

    Raises:
        UsageError: one is.
    """
    for folder in folders:
        if folder.is_symlink():
            raise UsageError(f"{folder} is a link, and what it leads to would change; remove it")


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder of runs; if it was created here and remains empty, it is removed.

    On a file system without locks, logs that and continues unlocked.

    Raises:
        SeitError: another process works in it.
        UsageError: it cannot be created, or lies in a store.
    """
    refuse_store(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / RUN_LOCK_NAME
    try:
        lock = take_lock(path, busy=f"another process is working in {folder}")
    except NoLocksError as error:
        _LOG.warning("%s; a second process there would not be noticed", error)
        lock = None
    try:
        yield
    finally:
        if lock is None or is_same_file(lock, path):
            with suppress(OSError):
                path.unlink()
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            for empty in made:
                empty.rmdir()
