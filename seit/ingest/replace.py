"""Replacement of a finished store by ``--overwrite``: the old one stays until the new one is whole.

The job makes the new store in ``.STORE.replacing`` next to STORE, and resumes there. The two
folders are then exchanged in one step, so a kill at any moment leaves the old or the new store at
STORE. Both need room on the disk meanwhile.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seit.errors import DamagedError, SeitError
from seit.ingest.description import is_same_job
from seit.ingest.result import TokenizeResult
from seit.shards import CARD_NAME, Store, open_store
from seit.stores import (
    check_folder,
    check_replaceable,
    held_store,
    is_half_replaced,
    put_over,
)

_OVERWRITE = "overwrite"


def holds_store(path: Path) -> bool:
    """Return True if there is a finished store, perhaps damaged, that a job would replace."""
    return (path / CARD_NAME).is_file() or is_half_replaced(path.resolve())


def replace_store(
    path: Path, job: Mapping[str, Any], make: Callable[[Path, bool], TokenizeResult]
) -> TokenizeResult:
    """Make a store next to the one at ``path``, then replace that with it.

    Args:
        path: folder of a finished store.
        job: description of the job.
        make: takes a folder, and whether to replace what it holds; makes the new store there.

    Raises:
        UsageError: a disk is mounted at ``path``, or it holds files that are not the store's.
        SeitError: the job failed, or another call is changing the store; the old one is unchanged.
    """
    path = path.resolve()
    made = path.with_name(f".{path.name}.replacing")
    request = hashlib.sha256(json.dumps([_OVERWRITE, job]).encode()).hexdigest()
    check_replaceable(path)
    with held_store(path) as (work, ended):
        if ended is not None and ended["request"] == request:  # killed after the exchange
            return TokenizeResult(
                **{**ended["outcome"], "warnings": tuple(ended["outcome"]["warnings"])}
            )
        _check_files(path)
        try:
            result = make(made, not is_made(made, job))
        finally:
            with suppress(OSError):
                made.rmdir()  # if nothing was readable
        _check_files(path)
        put_over(path, made, work, request=request, outcome=asdict(result))
    return result


def is_made(folder: Path, job: Mapping[str, Any]) -> bool:
    """Return True if a folder holds the whole store of a job."""
    try:
        store = open_store(folder)
        check_sizes(store)
    except SeitError:
        return False
    return is_same_job(store.card.job, job)


def check_sizes(store: Store) -> None:
    """Check that all files of a local store are there.

    Raises:
        DamagedError: one is missing or of another size.
    """
    for record in store.card.records:
        path = store.path / record.file
        if not path.is_file() or path.stat().st_size != record.bytes:
            raise DamagedError(
                f"{path} is missing or not of {record.bytes:,} bytes; `seit verify` lists all "
                "damage, and --overwrite makes the store again"
            )


def _check_files(path: Path) -> None:
    """Refuse to replace a store whose folder holds other things; a damaged card names none."""
    try:
        card = open_store(path).card
    except SeitError:
        return
    check_folder(path, card, reason="which would be lost with the store")
