"""Building of a store next to its destination, and the final move."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seit.errors import UsageError
from seit.files import explained_writes, publish
from seit.shards import LocalFolder, Location, open_folder
from seit.stores.copy import copy_store
from seit.stores.sink import UNFINISHED_NAME


@contextmanager
def work_folder(target: Location, *, resumes: bool = False) -> Iterator[Path]:
    """Yield a work folder: next to a local target, else among temporary files.

    It is removed at the end; leftovers of a killed call are removed at the start.

    Args:
        target: where the result will be.
        resumes: whether a remote target may hold an unfinished store, of whatever call.

    Raises:
        UsageError: ``target`` is neither new nor empty, or cannot be written.
    """
    place = open_folder(target)
    if not isinstance(place, LocalFolder):
        names = place.names()
        if names and not (resumes and UNFINISHED_NAME in names):
            raise UsageError(f"{place} is not empty; choose a new or empty place")
        with tempfile.TemporaryDirectory(prefix="seit-") as name:
            yield Path(name)
        return
    path = place.path.absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{place} is not empty; choose a new or empty folder")
    work = path.with_name(f".{path.name}.unfinished")
    with explained_writes(path):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def place_store(store: Path, target: Location) -> None:
    """Move a finished local store to ``target``: as a whole, or not at all.

    Raises:
        SeitError: it cannot be written.
    """
    place = open_folder(target)
    if isinstance(place, LocalFolder):
        with explained_writes(place.path):
            publish(store, place.path)
    else:
        copy_store(store, target)
