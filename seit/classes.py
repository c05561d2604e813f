"""Matching of classes between two lists by name, and detection of names that look like typos.

All code that compares two lists of classes uses this module: labels refer to classes by name, never
by number.

Legend: N classes of one list, M of the other.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError

SHOWN = 5
"""Most names in a message."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")
_SEPARATORS = re.compile(r"[\s_\-]+")


@dataclass(frozen=True)
class ClassMatch:
    """Match of the M classes of one list with the N of another.

    Attributes:
        numbers: int64 (M,), number of each class in the other list; −1 if it is missing there.
        unknown: names missing in the other list, in order.
        missing: names of the other list missing in this one, in order.
    """

    numbers: npt.NDArray[np.int64]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_identity(self) -> bool:
        """True if both lists have the same classes with the same numbers."""
        return not self.missing and np.array_equal(self.numbers, np.arange(len(self.numbers)))

    def relabel(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return labels (n,) as numbers of the other list; −1 for an unknown class and for −1."""
        relabelled: npt.NDArray[np.int64] = np.append(self.numbers, -1)[labels]
        return relabelled


def match_classes(
    classes: Sequence[str], known: Sequence[str], *, loose: bool = False
) -> ClassMatch:
    """Find each of ``classes`` (M,) in ``known`` (N,) by name.

    Args:
        classes: names to look for.
        known: names to search.
        loose: without an exact match, match the only name that differs just in case, Unicode form,
            spaces, underscores and hyphens.

    Raises:
        UsageError: the lists differ, and one of them repeats a name.
    """
    if tuple(classes) == tuple(known):
        return ClassMatch(np.arange(len(known)), (), ())
    check_distinct(classes)
    check_distinct(known)
    number_of = {name: number for number, name in enumerate(known)}
    numbers = np.array([number_of.get(name, -1) for name in classes], dtype=np.int64)
    if loose and (numbers < 0).any():
        spellings = _by_folded(known)
        for place in np.flatnonzero(numbers < 0).tolist():
            candidates = spellings.get(folded(classes[place]), ())
            if len(candidates) == 1:
                numbers[place] = number_of[candidates[0]]
    found = np.zeros(len(known), dtype=bool)
    found[numbers[numbers >= 0]] = True
    return ClassMatch(
        numbers,
        tuple(classes[place] for place in np.flatnonzero(numbers < 0).tolist()),
        tuple(known[number] for number in np.flatnonzero(~found).tolist()),
    )


def unite_classes(
    lists: Sequence[Sequence[str]], *, owners: Sequence[object] | None = None
) -> tuple[tuple[str, ...], list[npt.NDArray[np.int32]]]:
    """Unite lists of classes by name, in the order of first appearance.

    Args:
        lists: lists of names.
        owners: owner of each list, for messages.

    Returns:
        The names, and for each list int32 (M,), the new numbers of its labels.

    Raises:
        UsageError: the lists differ, and one of them repeats a name.
    """
    first = tuple(lists[0])
    if all(tuple(names) == first for names in lists):
        return first, [np.arange(len(first), dtype=np.int32) for _ in lists]
    for names, owner in zip(lists, owners or [None] * len(lists), strict=True):
        check_distinct(names, owner=owner)
    united = {name: number for number, name in enumerate(dict.fromkeys(chain(*lists)))}
    return tuple(united), [
        np.array([united[name] for name in names], dtype=np.int32) for names in lists
    ]


def check_distinct(classes: Sequence[str], *, owner: object = None) -> None:
    """Refuse repeated class names; the message names ``owner``.

    Raises:
        UsageError: a name is repeated; the message shows the first.
    """
    twice = next((name for name, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        where = "" if owner is None else f"{owner}: "
        raise UsageError(
            f"{where}two classes are named {twice!r}, which are indistinguishable in another list "
            "of classes; give them other names"
        )


def near_names(names: Iterable[str], among: Sequence[str]) -> dict[str, str]:
    """Return a similar name in ``among`` for each of ``names`` that it lacks."""
    return Spellings(among).near(names)


class Spellings:
    """Names so far, searched for similar ones; each is looked at once, however many come later."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self._first: dict[str, str] = {}
        self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Add names."""
        for name in names:
            self._known.add(name)
            self._first.setdefault(folded(name), name)

    def near(self, names: Iterable[str]) -> dict[str, str]:
        """Return the first similar name for each of ``names`` that is not known."""
        pairs = {name: self._first.get(folded(name)) for name in names if name not in self._known}
        return {name: found for name, found in pairs.items() if found is not None}


def split_warning(
    classes: Sequence[str],
    *,
    learned: Iterable[int],
    evaluated: Iterable[int],
    train: str = "train",
    val: str = "val",
) -> str | None:
    """Return a warning if evaluated classes have no training sample; else None.

    Args:
        classes: names (N,).
        learned: labels that occur in the training split, repeated or not; −1 is ignored.
        evaluated: labels that occur in the evaluated split.
        train: name of the training split.
        val: name of the evaluated split.
    """
    known = set(learned)
    lacking = sorted(set(evaluated) - known - {-1})
    if not lacking or not known - {-1}:
        return None
    names = [classes[label] for label in lacking]
    one = len(names) == 1
    text = (
        f"{len(names):,} of {len(classes):,} classes {'has' if one else 'have'} samples in split "
        f"{val!r} and none in {train!r} to learn from: {listed(names)}"
    )
    near = near_names(names, [classes[label] for label in sorted(known - {-1})])
    return f"{text}; {say_near(near)}; give both one name" if near else text


def say_near(near: "dict[str, str]") -> str:
    """Describe similar names: "'Cat' is nearly 'cat' (case)"."""
    shown = [
        f"{name!r} is nearly {other!r} ({_difference(name, other)})"
        for name, other in islice(near.items(), SHOWN)
    ]
    more = f" and {len(near) - SHOWN:,} more" if len(near) > SHOWN else ""
    return ", ".join(shown) + more


def listed(names: Sequence[str]) -> str:
    """Quote the first of ``names``, and count the others."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def folded(name: str) -> str:
    """Normalize a name: case, Unicode form, spaces, ``_`` and ``-``, zeros.

    Removes leading zeros of a number, and a fraction of zeros as in ``7.0``.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
    if _INTEGER.fullmatch(plain):
        return str(int(plain.partition(".")[0]))
    return _SEPARATORS.sub(" ", plain).strip()


def _by_folded(names: Iterable[str]) -> dict[str, list[str]]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings[folded(name)].append(name)
    return dict(spellings)


def _difference(name: str, other: str) -> str:
    """Describe the difference of two names with equal folded forms."""
    forms = [unicodedata.normalize("NFKC", text) for text in (name, other)]
    if forms[0] == forms[1]:
        return "another Unicode form"
    if forms[0].casefold() == forms[1].casefold():
        return "case"
    if _INTEGER.fullmatch(forms[0].strip()):
        return "the writing of a number"
    return "blanks, underscores or hyphens"
