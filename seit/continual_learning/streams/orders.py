"""Order in which the classes of a corpus arrive.

Legend: C classes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seit.classes import listed
from seit.documents import parse_json, read_plain, reason_of
from seit.errors import UsageError

PILOT_SEED = 1993
"""Default seed of the permutation in PILOT and PyCIL."""
MAX_ORDER_BYTES = 1 << 22
"""Maximum size of an order file."""
_PILOT = "pilot"
_NUMBERS = re.compile(r"[\d\s,]*")


def class_order(
    order: str, num_classes: int, *, classes: Sequence[str] | None = None
) -> tuple[int, ...]:
    """Return the classes 0 … C − 1 in the order that ``order`` names.

    Args:
        order: ``natural`` for 0 … C − 1; ``pilot`` for the permutation of PILOT and PyCIL with seed
            1993, ``pilot:SEED`` for another seed; or the path of a file: a JSON list of numbers and
            names, or text with one class per line, or numbers separated by blanks or commas. Digits
            in a text file are a number; if class names are digits, use JSON, whose strings are
            always names.
        num_classes: C.
        classes: class names, for files with names.

    Raises:
        UsageError: the order cannot be read, or does not contain every class once.
    """
    if order == "natural":
        return tuple(range(num_classes))
    kind, _, seed = order.partition(":")
    if kind == _PILOT:
        number = int(seed) if seed.isdecimal() and len(seed) < 11 else PILOT_SEED
        if (seed and str(number) != seed) or number >= 1 << 32:
            raise UsageError(f"the seed of order {order!r} is {seed!r}; expected 0 to 2^32 - 1")
        # Legacy generator, to reproduce their permutation exactly.
        random = np.random.RandomState(number)
        return tuple(random.permutation(num_classes).tolist())
    entries = _read(Path(order))
    number_of = {name: number for number, name in reversed(list(enumerate(classes or ())))}
    numbers = [_resolve(entry, order, number_of) for entry in entries]
    return _checked(numbers, order, num_classes, classes)


def _read(path: Path) -> list[Any]:
    """Read the integers and names of a file."""
    try:
        text = read_plain(path, max_bytes=MAX_ORDER_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = reason_of(error) if is_text else "it is not UTF-8 text"
        raise UsageError(
            f"the order {str(path)!r} cannot be read: {reason}; expected natural, pilot, "
            "pilot:SEED or a file of classes"
        ) from error
    if text.lstrip().startswith("["):
        try:
            return list(parse_json(text))
        except ValueError as error:
            raise UsageError(f"{path} is not a JSON list of classes: {error}") from error
    entries: list[Any] = []
    for line in map(str.strip, text.splitlines()):
        if not line:
            continue
        if _NUMBERS.fullmatch(line):
            entries += [_number(digits) for digits in re.findall(r"\d+", line)]
        else:
            entries.append(line)
    return entries


def _number(digits: str) -> int:
    """Return the number, or one beyond every class if there are too many digits to parse."""
    return int(digits) if len(digits) < 19 else 1 << 62


def _resolve(entry: Any, order: str, number_of: Mapping[str, int]) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool):
        return entry
    if not isinstance(entry, str):
        raise UsageError(f"{order} holds {json.dumps(entry)[:40]}; expected numbers and names")
    if entry not in number_of:
        known = f"; it has {listed(list(number_of))}" if number_of else ""
        raise UsageError(f"{order} names the class {entry[:80]!r}, which the corpus lacks{known}")
    return number_of[entry]


def _checked(
    numbers: Sequence[int], order: str, num_classes: int, classes: Sequence[str] | None
) -> tuple[int, ...]:
    seen: set[int] = set()
    for number in numbers:
        if not 0 <= number < num_classes:
            raise UsageError(f"{order} holds class {number}; expected 0 to {num_classes - 1}")
        if number in seen:
            raise UsageError(f"{order} holds class {number} twice; expected every class once")
        seen.add(number)
    if len(seen) < num_classes:
        missing = [number for number in range(num_classes) if number not in seen]
        named = listed([classes[one] if classes else f"class {one}" for one in missing])
        raise UsageError(
            f"{order} holds {len(seen)} of {num_classes} classes, and not {named}; list every "
            "class once"
        )
    return tuple(numbers)
