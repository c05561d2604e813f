"""Several labels per instance: a column of lists, or of text with a separator."""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.corpus import Draft, shown
from seit.ingest.sources.labels import label_text, name_classes
from seit.shards import LABELS_KEY

LABELS_COLUMN = LABELS_KEY
"""Column of several labels per instance."""
SEPARATOR = "|"
"""Default separator of the labels in a text."""
MAX_LABELS = 10_000
"""Most labels of an instance."""


class NamedSets(NamedTuple):
    """Drafts with their labels as class names in the metadata, and the classes."""

    drafts: list[Draft]
    classes: tuple[str, ...]


def unused_separator(source: str) -> str:
    """Return the warning about a separator for a source without a table of files."""
    return (
        f"--label-separator has no effect: {shown(source)} has no table of files; several labels "
        "of a file are a list in Parquet, or in the JSON of a tar"
    )


def read_label_set(
    value: object, where: str, *, separator: str = SEPARATOR
) -> tuple[str, ...] | None:
    """Return the labels in a cell, without repetitions; None if they are unknown.

    A list has one label per entry, and a text is a JSON list or has its labels between separators.
    An empty list or text means none of the labels, null that they are unknown.

    Raises:
        UsageError: the value is a mapping, a list with lists or mappings, or too long.
    """
    if value is None:
        return None
    parts = _parts(value, separator)
    if any(isinstance(part, list | dict | tuple) for part in parts):
        found = f"{value}" if len(f"{value}") < 60 else f"a {type(value).__name__}"
        raise UsageError(
            f"{where} has {shown(found)} for its labels; expected a list of names or numbers, or "
            f"text with {separator!r} between them"
        )
    names = dict.fromkeys(label_text(part) for part in parts if part is not None)
    names.pop("", None)
    if len(names) > MAX_LABELS:
        raise UsageError(
            f"{where} has {len(names):,} labels; expected at most {MAX_LABELS:,}: check the "
            "separator"
        )
    return tuple(names)


def _parts(value: object, separator: str) -> Sequence[object]:
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return found
    return text.split(separator)


def name_label_sets(
    drafts: Sequence[Draft],
    label_sets: Sequence[tuple[str, ...] | None],
    *,
    known: Sequence[str] = (),
) -> NamedSets:
    """Put the classes of each draft into its metadata, under ``labels``; see `name_classes`."""
    flat = [label for labels in label_sets for label in labels or ()]
    names, classes = name_classes(flat, known=known)
    class_of = dict(zip(flat, names, strict=True))
    made = []
    for draft, labels in zip(drafts, label_sets, strict=True):
        own = {class_of[label] for label in labels or ()}
        found = None if labels is None else sorted(name for name in own if name is not None)
        made.append(draft._replace(metadata=(*draft.metadata, (LABELS_KEY, found))))
    return NamedSets(made, classes)


def with_labels(
    metadata: Iterable[tuple[str, object]], labels: tuple[str, ...] | None
) -> tuple[tuple[str, object], ...]:
    """Return metadata with the labels of a draft, as they were given."""
    others = tuple(pair for pair in metadata if pair[0] != LABELS_KEY)
    return *others, (LABELS_KEY, None if labels is None else list(labels))


def has_label_set(draft: Draft) -> bool:
    """Return whether a draft has several labels in its metadata, and none of its own."""
    return draft.class_name is None and labels_in(draft.metadata) is not None


def settle_label_sets(drafts: Iterable[Draft], *, known: Sequence[str] = ()) -> NamedSets:
    """Return drafts with their labels as class names in the metadata, and the classes.

    A draft has several labels by `with_labels`, or one of its own; ``known`` is as in
    `name_classes`.
    """
    plain, sets = [], []
    for draft in drafts:
        several = labels_in(draft.metadata)
        own = None if draft.class_name is None else (draft.class_name,)
        sets.append(tuple(several) if own is None and several is not None else own)
        others = tuple(pair for pair in draft.metadata if pair[0] != LABELS_KEY)
        plain.append(draft._replace(class_name=None, metadata=others))
    return name_label_sets(plain, sets, known=known)


def labels_in(metadata: Iterable[tuple[str, object]]) -> list[str] | None:
    """Return the class names in an instance's metadata; None without any."""
    found = dict(metadata).get(LABELS_KEY)
    if not isinstance(found, list):
        return None
    return [name for name in found if isinstance(name, str)]
