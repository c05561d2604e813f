"""Labels as sources write them: their classes, and warnings about oddities."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from seit.classes import folded, split_warning
from seit.errors import UsageError
from seit.ingest.sources.corpus import examples, shown

LABEL_COLUMNS = ("label", "class", "category")
"""Label columns of tables and fields of JSON members; the first present one wins."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0+)?")
_REWRITTEN = re.compile(r"[+].*|-?0[0-9].*|-0+(\.0+)?")
_TRUTHS = ("false", "true")
"""Truth values; stores of an earlier version have classes False and True for those of JSON."""
_MISSING = {"nan", "<na>", "nat", "null"}
_MISSING_IN_TABLES = {*_MISSING, "none", "na", "n/a", "#n/a"}
_SEPARATORS = (",", ";", "|", "&", "+", "\n")


def read_label(value: object, where: str) -> str | None:
    """Return the label in a table or JSON, or None for no label.

    Raises:
        UsageError: the value is a list or a mapping.
    """
    if value is None:
        return None
    if isinstance(value, list | dict | tuple):
        found = f"{value}" if len(f"{value}") < 60 else f"a {type(value).__name__}"
        raise UsageError(
            f"{where} has {shown(found)} for a label; a label is one value: keep one of them, or "
            "rename the column to labels if an instance may have several"
        )
    return label_text(value) or None


def label_text(value: object) -> str:
    """Return a single label as text without blanks around it; truth values as JSON writes them."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def name_classes(
    labels: Sequence[str | None], *, known: Sequence[str] = ()
) -> tuple[list[str | None], tuple[str, ...]]:
    """Return the classes of labels that may be numbers or names.

    If every label is an integer (in tables also "3.0"), the classes are the distinct numerals in
    numeric order, and −1 means unlabeled. Otherwise they are the distinct names, sorted.

    Classes that are ``known``, those of a store to update, stay: a label is of the one that is
    spelled like it, or else of the one with its number. If all known ones are numerals, so are new
    integers.

    Returns:
        The class name of each label (None: unlabeled), and the classes.
    """
    names = _names_of({label for label in labels if label is not None}, known)
    found = {name for name in names.values() if name is not None}
    classes = sorted(found, key=_number) if _are_integers(found) else sorted(found)
    return [None if label is None else names[label] for label in labels], tuple(classes)


def _names_of(given: set[str], known: Sequence[str]) -> dict[str, str | None]:
    """Return the class of each label; see `name_classes`."""
    spellings: dict[int, list[str]] = {}
    for name in filter(_INTEGER.fullmatch, known):
        spellings.setdefault(_number(name), []).append(name)
    of_number = {
        number: str(number) if str(number) in spelled else spelled[0]
        for number, spelled in spellings.items()
        if str(number) in spelled or len(spelled) == 1
    }
    takes_numerals = all([str(number)] == spelled for number, spelled in spellings.items()) and (
        _are_integers(given) or (bool(known) and _are_integers(known))
    )
    is_missing = takes_numerals or bool(spellings)
    exact = set(known)

    def name_of(label: str) -> str | None:
        if label in _TRUTHS and label not in exact and label.title() in exact:
            return label.title()
        if label in exact or not _INTEGER.fullmatch(label):
            return label
        number = _number(label)
        if number in of_number:
            return of_number[number]
        if number == -1 and is_missing:
            return None
        return str(number) if takes_numerals else label

    return {label: name_of(label) for label in given}


def rewritten_remarks(labels: Iterable[str | None], *, known: Sequence[str] = ()) -> list[str]:
    """Return a warning about numerals spelled differently from their class, as 007 for class 7."""
    given = {label for label in labels if label is not None}
    rewritten = sorted(
        (label, name)
        for label, name in _names_of(given, known).items()
        if name not in (None, label) and _REWRITTEN.fullmatch(label)
    )
    if not rewritten:
        return []
    label, name = rewritten[0]
    if not _are_integers(given):
        return [
            "the store has numbers as classes, so labels that are numbers are matched with these: "
            f"{shown(label)} as {name}"
        ]
    return [
        "all labels are numbers, so their classes are written without leading zeros and signs: "
        f"{shown(label)} as {name}; to keep the spelling, put a letter before each"
    ]


def label_remarks(classes: Sequence[str], learned: Iterable[str], *, is_folder: bool) -> list[str]:
    """Return warnings about classes that are lists, vary in spelling, or look like missing values.

    ``learned`` are the classes of train; :func:`compare_splits` covers spellings in other splits.
    """
    lines = []
    words = _MISSING if is_folder else _MISSING_IN_TABLES
    missing = [name for name in classes if name.lower() in words]
    if missing:
        lines.append(
            f"a class is called {examples(missing)}, as programs write missing values; if it is "
            "one, leave the label empty"
        )
    lists = _lists(classes)
    if lists:
        lines.append(
            f"{len(lists)} of {len(classes)} classes look like lists of labels: "
            f"{examples([repr(name) for name in lists])}; each list is one class here; if "
            "an instance may have several labels, give a table of files and --label-separator"
        )
    alike = alike_classes(learned)
    if alike:
        pairs = examples([" and ".join(map(_spelt, group)) for group in alike])
        lines.append(f"classes that differ by spelling alone are kept apart: {pairs}")
    return lines


def alike_classes(classes: Iterable[str]) -> list[list[str]]:
    """Group names that differ only in case, Unicode form, blanks and the writing of numbers."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def compare_splits(classes: Sequence[str], counts: Mapping[str, Mapping[int, int]]) -> list[str]:
    """Return warnings about classes that other splits evaluate but ``train`` has no sample of.

    ``counts`` has the samples of each split by label; −1 is unlabeled.
    """
    present = {split: [label for label, n in found.items() if n] for split, found in counts.items()}
    learned = present.pop("train", [])
    warnings = (
        split_warning(classes, learned=learned, evaluated=labels, val=split)
        for split, labels in present.items()
    )
    return [text for text in warnings if text is not None]


def _are_integers(given: Iterable[str]) -> bool:
    return all(_INTEGER.fullmatch(label) for label in given)


def _number(label: str) -> int:
    return int(label.partition(".")[0])


def _lists(classes: Sequence[str]) -> list[str]:
    """Return classes that share parts between separators, if most separated ones do."""
    for separator in _SEPARATORS:
        parts = {
            name: {part.strip().lower() for part in name.split(separator)} - {""}
            for name in classes
        }
        separated = [name for name in classes if len(parts[name]) > 1]
        counts = Counter(part for found in parts.values() for part in found)
        shared = [
            name
            for name in separated
            if sum(counts[part] > 1 for part in parts[name]) * 2 >= len(parts[name])
        ]
        is_alone = len(shared) == 1 and any(counts[part] < 2 for part in parts[shared[0]])
        if shared and len(shared) * 2 >= len(separated) and not is_alone:
            return shared
    return []


def _spelt(name: str) -> str:
    """Return a name in a form that distinguishes look-alike characters."""
    is_composed = unicodedata.is_normalized("NFC", name)
    return shown(name if is_composed else ascii(name)[1:-1])
