"""Brace patterns of shard names, as WebDataset writes them: train-{000..012}.tar."""

import re

from seit.errors import UsageError

MAX_NAMES = 100_000

_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def has_braces(text: str) -> bool:
    """Whether a text has a brace group that ``expand`` understands."""
    return any(_choices(match[1]) for match in _GROUP.finditer(text))


def expand(pattern: str) -> list[str]:
    """Return every name a pattern stands for, the last group varying fastest.

    ``{a..b}`` counts up, or down when b < a, with the width of the wider bound when one starts with
    a 0; ``{x,y}`` lists. Anything else in braces stays as it is.

    Raises:
        UsageError: more than ``MAX_NAMES`` names.
    """
    names = [""]
    end = 0
    for match in _GROUP.finditer(pattern):
        literal = pattern[end : match.start()]
        end = match.end()
        choices = _choices(match[1]) or [match[0]]
        if len(names) * len(choices) > MAX_NAMES:
            raise UsageError(f"{pattern} stands for more than {MAX_NAMES:,} files")
        names = [f"{name}{literal}{choice}" for name in names for choice in choices]
    return [name + pattern[end:] for name in names]


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",") if "," in inside else []
    first, last = int(found[1]), int(found[2])
    if abs(last - first) >= MAX_NAMES:
        raise UsageError(f"{{{inside}}} stands for more than {MAX_NAMES:,} files")
    padded = any(len(bound) > 1 and bound.startswith("0") for bound in found.groups())
    width = max(map(len, found.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
