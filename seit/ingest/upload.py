"""Jobs with a URL as STORE: build the store in a local folder, then upload it, the card last.

The folder is kept until the upload is complete, so a killed job resumes without repeating uploads.
"""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

from seit.documents import read_json
from seit.errors import UsageError
from seit.files import explained_writes, write_atomically
from seit.shards import (
    CARD_NAME,
    Folder,
    Store,
    hide_secrets,
    is_url,
    open_folder,
    open_store,
    read_card,
)
from seit.stores import copy_store

_NAME_DIGITS = 16
_MAX_LIST_BYTES = 1 << 30


def staging_folder(url: str, workdir: Path | None) -> Path:
    """Return the folder in which to build the store of a URL.

    Raises:
        UsageError: ``workdir`` is missing or cannot be created.
    """
    if workdir is None:
        raise UsageError(
            f"STORE {hide_secrets(url)} is remote; name a local folder with room for the store by "
            "--workdir"
        )
    with explained_writes(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    return workdir / f"store-{hashlib.sha256(url.encode()).hexdigest()[:_NAME_DIGITS]}"


def refuse_workdir(store: str | Path, workdir: Path | None) -> None:
    """Raise a UsageError if a build folder is named for a store that is no URL."""
    if workdir is not None and not is_url(str(store)):
        raise UsageError(
            f"workdir is set but STORE {store} is a local folder, where the store is made; leave "
            "--workdir out"
        )


def find_remote(url: str, staging: Path, *, overwrite: bool) -> Store | None:
    """Return the complete store at the URL, or None if there is none or it is to be replaced.

    Raises:
        UsageError: the URL cannot be read, or holds something else.
        DamagedError: the card of the store is damaged, so that its files are unknown.
    """
    folder = open_folder(url)
    names = _names(folder)
    if CARD_NAME in names:
        if not overwrite:
            return open_store(folder)
        read_card(folder)
        return None
    if names and not staging.exists():
        raise UsageError(
            f"{folder} already holds {names[0]!r} and no store; choose a new or empty place, or "
            "the --workdir of the job that began there"
        )
    return None


def upload(staging: Path, url: str) -> None:
    """Upload a finished store, replacing what is at the URL, and remove the local copy.

    The names of the files to remove are next to ``staging`` until all are gone.

    Raises:
        SeitError: the remote server does not respond; the same call resumes.
    """
    folder = open_folder(url)
    old = staging.with_name(f"{staging.name}.old.json")
    if folder.exists(CARD_NAME):
        found = read_card(folder)
        if found.seal != read_card(staging).seal:
            names = [CARD_NAME, *(record.file for record in found.records)]
            write_atomically(old, json.dumps(names).encode())
    if old.exists():
        for name in read_json(old, list[str], max_bytes=_MAX_LIST_BYTES):
            with suppress(FileNotFoundError):  # removed by an earlier call, or lost before
                folder.remove(name)
        old.unlink()
    copy_store(staging, folder)
    shutil.rmtree(staging, ignore_errors=True)


def _names(folder: Folder) -> list[str]:
    try:
        return folder.names()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{error}; check the address and your credentials") from None
