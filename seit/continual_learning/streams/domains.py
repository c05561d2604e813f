"""Which domain each sample is from: a CSV file, or the folders of the corpus."""

import csv
from collections.abc import Sequence
from pathlib import Path

from seit.errors import UsageError

FOLDER = "folder"
"""In place of a file: the first folder of a sample's key is its domain."""


def read_domains(path: str | Path, keys: Sequence[str], *, split: str = "") -> list[str]:
    """The domain of each of ``keys``, in their order.

    Args:
        path: a CSV file of lines ``key,domain``, with or without a first line that says so; keys
            that are not asked for may be in it. Or ``folder``.
        keys: of a split's samples.
        split: the name of the split, which as the first folder of a key is no domain.

    Raises:
        UsageError: the file cannot be read, or lacks a key, or gives it two domains.
    """
    if str(path) == FOLDER:
        return [_folder_of(key, split) for key in keys]
    wanted: dict[str, str | None] = dict.fromkeys(keys)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            for number, fields in enumerate(csv.reader(file), 1):
                if not fields or (number == 1 and fields == ["key", "domain"]):
                    continue
                if len(fields) != 2 or not fields[1]:
                    raise UsageError(f"line {number} of {path} is not key,domain")
                key, domain = fields
                if key not in wanted:
                    continue
                if wanted[key] not in (None, domain):
                    raise UsageError(f"line {number} of {path} gives {key} a second domain")
                wanted[key] = domain
    except OSError as error:
        raise UsageError(
            f"the domains {str(path)!r} cannot be read: {error.strerror}; pass a CSV file of "
            f"key,domain or {FOLDER!r}"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no CSV file of key,domain: {error}") from error
    domains = [found for key in keys if (found := wanted[key]) is not None]
    if len(domains) < len(keys):
        missing = [key for key in keys if wanted[key] is None]
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(keys)} keys (the first: {missing[0]}); add a "
            "line for each"
        )
    return domains


def _folder_of(key: str, split: str) -> str:
    folders = key.split("/")[:-1]
    if split and folders[:1] == [split]:
        folders = folders[1:]
    if not folders:
        raise UsageError(f"{key} lies in no folder that could be its domain; pass a CSV file")
    return folders[0]
