"""Rules for names of splits and paths of files, in cards and in new stores.

A split's name becomes a folder, and a path a file, wherever the store is written. So each is plain:
it stays inside the store, is not hidden, and prints in one line.
"""

import re
import unicodedata
from collections.abc import Iterable

from seit.errors import UsageError
from seit.files import PARTIAL_SUFFIX

MAX_SPLIT_NAME_BYTES = 240
"""Leaves room for `.NAME.zarr.partial`, a file name of at most 255 bytes."""
MAX_PART_BYTES = 247
"""Limit of a part of a path; leaves room for its temporary name of at most 255 bytes."""
MAX_PATH_BYTES = 1024
_INNER = r"/\\:\x00-\x1f\x7f-\x9f\ud800-\udfff"
_PART = rf"[^.{_INNER}][^{_INNER}]*"
_NAME = re.compile(_PART)
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_UTF8_BYTES = 4
"""Most bytes of a character."""
_RESERVED = frozenset(
    (
        "store.json",
        "codebook.safetensors",
        "tokenizer.safetensors",
        "skipped.jsonl",
        "inputs.bin",
    )
)
"""Files of a store; folders of splits cannot have these names."""


def is_split_name(name: str) -> bool:
    """Return whether a card may contain a split of this name."""
    return _NAME.fullmatch(name) is not None and _fits(name, MAX_SPLIT_NAME_BYTES)


def is_inner_path(path: str) -> bool:
    """Return whether a card may list this path: valid split names joined by ``/``."""
    if _PATH.fullmatch(path) is None or path.endswith(PARTIAL_SUFFIX):
        return False
    if len(path) * _UTF8_BYTES <= MAX_PART_BYTES:
        return True
    return _fits(path, MAX_PATH_BYTES) and all(
        _fits(part, MAX_PART_BYTES) for part in path.split("/")
    )


def check_split_names(names: Iterable[str]) -> None:
    """Refuse invalid names of splits of a new store, before work is spent on it.

    Raises:
        UsageError: a name is not plain, is that of another file, or differs from an earlier one
            only in case or Unicode form of accents, which not every disk distinguishes.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not is_split_name(name):
            raise UsageError(
                f"{name[:MAX_SPLIT_NAME_BYTES]!r} cannot name a split, which becomes a folder; "
                "choose a plain word such as 'train' or 'fold-3'"
            )
        folded = _folded(name)
        if folded in _RESERVED:
            raise UsageError(
                f"{name!r} cannot name a split, as a store has a file of that name; choose a plain "
                "word such as 'train' or 'fold-3'"
            )
        if seen.setdefault(folded, name) != name:
            raise UsageError(
                f"the splits {seen[folded]!r} and {name!r} would share a folder on a disk that "
                "ignores case; rename one of them"
            )


def _fits(text: str, most_bytes: int) -> bool:
    return len(text) * _UTF8_BYTES <= most_bytes or len(text.encode()) <= most_bytes


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
