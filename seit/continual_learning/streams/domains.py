"""Domains of samples, from a CSV file or from the folders of the corpus."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from seit.errors import UsageError
from seit.ingest import csv_lines

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
    for number, fields in _lines(Path(path)):
        if number == 1 and fields == ["key", "domain"]:
            continue
        if len(fields) != 2 or not fields[1]:
            raise UsageError(f"line {number} of {path} is not key,domain")
        key, domain = fields
        if key not in wanted:
            continue
        if wanted[key] not in (None, domain):
            raise UsageError(f"line {number} of {path} gives {key} a second domain")
        wanted[key] = domain
    domains = [found for key in keys if (found := wanted[key]) is not None]
    if len(domains) < len(keys):
        missing = [key for key in keys if wanted[key] is None]
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(keys)} keys (the first: {missing[0]}); add a "
            "line for each"
        )
    return domains


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from csv_lines(path)
    except UsageError as error:
        raise UsageError(f"{error}; pass a file of key,domain or {FOLDER!r}") from error


def _folder_of(key: str, split: str) -> str:
    folders = key.split("/")[:-1]
    if split and folders[:1] == [split]:
        folders = folders[1:]
    if not folders:
        raise UsageError(f"{key} has no folder to use as its domain; pass a CSV file")
    return folders[0]
