"""Domains of samples, from a CSV file or from the folders of the corpus."""

import csv
from collections.abc import Sequence
from pathlib import Path

from seit.errors import UsageError

FOLDER = "folder"
"""In place of a file: the domain is the first folder of a sample's key."""


def read_domains(path: str | Path, keys: Sequence[str], *, split: str = "") -> list[str]:
    """Return the domain of each of ``keys``, in order.

    Args:
        path: CSV file of lines ``key,domain``, with or without a header; other keys are ignored. Or
            ``folder``.
        keys: keys of a split's samples.
        split: name of the split, skipped as the first folder of a key.

    Raises:
        UsageError: the file cannot be read, lacks a key, or gives a key two domains.
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
