"""Recognition of stores' folders, in which commands write nothing else."""

import os
from pathlib import Path

from seit.errors import UsageError

CARD_NAME = "store.json"
FORMAT_NAME = "seit-store"
JOB_FOLDER = ".tokenize"
"""Subfolder in which a tokenize job works; it may hold samples, and the job's lock."""
_CARD_HEAD_BYTES = 256


def is_card(path: Path) -> bool:
    """Return True if a file is the card of a store, even a damaged one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return FORMAT_NAME.encode() in file.read(_CARD_HEAD_BYTES)


def refuse_inside_store(path: Path) -> None:
    """Refuse an output in the folder of a store or of an unfinished job, which would damage it.

    Args:
        path: file or folder to write; if it is itself a store, that is not refused here.

    Raises:
        UsageError: a folder around it is a store.
    """
    for folder in Path(os.path.realpath(path)).parents:
        if _is_store(folder):
            raise UsageError(
                f"{path} lies inside the store {folder}, which would be damaged by other files; "
                "choose a path outside it"
            )


def refuse_store(folder: Path) -> None:
    """Refuse a folder of results that is a store, or lies inside one.

    Raises:
        UsageError: it is or does.
    """
    refuse_inside_store(folder)
    if _is_store(folder):
        raise UsageError(
            f"{folder} is a store, which would be damaged by other files; choose another folder"
        )


def _is_store(folder: Path) -> bool:
    try:
        return is_card(folder / CARD_NAME) or (folder / JOB_FOLDER / "job.json").is_file()
    except OSError:
        return False
