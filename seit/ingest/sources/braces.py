"""Brace patterns of shard names as in WebDataset: train-{000..012}.tar."""

import re
from collections.abc import Iterator

from braceexpand import braceexpand

from seit.errors import UsageError

MAX_NAMES = 100_000
_MAX_LEVELS = 20
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})(?:\.\.-?([0-9]{1,18}))?")
_ENDLESS = re.compile(r"-?[0-9]+\.\.-?[0-9]+")


def has_braces(text: str) -> bool:
    """Return True if a text has a brace group that expands to other names."""
    return next(_names(text)) != text


def expand(pattern: str) -> list[str]:
    """Return all names of a pattern in bash's order, the last group varying fastest.

    ``{a..b}`` and ``{a..b..step}`` count, padded to the width of the wider bound if one starts with
    a 0; ``{x,y}`` lists; groups may be nested. Anything else in braces stays as it is.

    Raises:
        UsageError: it may expand to more than ``MAX_NAMES`` names.
    """
    return list(_names(pattern))


def _names(pattern: str) -> Iterator[str]:
    # `webdataset.shardlists.expand_urls` does no more for a list of files, but also cuts at "::",
    # which occurs in fsspec's URLs, expands environment variables, and is unbounded.
    _check_size(pattern)
    try:
        yield from braceexpand(pattern, escape=False)
    except ValueError:  # unbalanced braces
        yield pattern


def _check_size(pattern: str) -> None:
    """Refuse patterns of too many names, counting nested groups as if they were adjacent."""
    most, rest = 1, pattern
    for _ in range(_MAX_LEVELS):
        groups = _INNERMOST.findall(rest)
        if not groups:
            return
        for inside in groups:
            most *= _size(inside)
            if most > MAX_NAMES:
                raise UsageError(f"{pattern} stands for more than {MAX_NAMES:,} files")
        rest = _INNERMOST.sub("", rest)
    raise UsageError(f"{pattern} has braces in braces, more than {_MAX_LEVELS} levels deep")


def _size(inside: str) -> int:
    """Return the maximum number of names of a group without nested groups."""
    if found := _RANGE.fullmatch(inside):
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        return abs(last - first) // (step or 1) + 1
    if _ENDLESS.match(inside):
        return MAX_NAMES + 1
    return max(inside.count(",") + 1, 52 if ".." in inside else 1)  # {a..z}
