"""Manifests: tables (CSV, JSON Lines, Parquet) of files, with optional labels and splits."""

import os
import posixpath
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from seit.errors import UsageError
from seit.ingest.sources.assemble import assemble
from seit.ingest.sources.corpus import (
    SPLIT_NAMES,
    Corpus,
    Draft,
    examples,
    listing_pulse,
    nearest,
    shown,
)
from seit.ingest.sources.instance_table import DraftTable
from seit.ingest.sources.label_sets import (
    LABELS_COLUMN,
    SEPARATOR,
    name_label_sets,
    read_label_set,
)
from seit.ingest.sources.labels import (
    LABEL_COLUMNS,
    name_classes,
    read_label,
    rewritten_remarks,
)
from seit.ingest.sources.splits import HashSplit
from seit.ingest.sources.tables import read_table
from seit.ingest.sources.walk import as_text
from seit.shards import is_url

PATH_COLUMNS = ("path", "file", "filename", "image", "audio", "file_name", "file_path", "filepath")
SPLIT_COLUMN = "split"
_SHOWN_MISSING = 4
"""Names kept for a message, one more than it shows, so that it ends with an ellipsis."""

# Splits become folder names in the store.
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def list_manifest(
    path: Path,
    *,
    hash_split: HashSplit,
    base: str,
    source: str | None = None,
    sizes: Mapping[str, int] | None = None,
    label_separator: str | None = None,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List a table; column names are matched in lower case, the first of each tuple above wins.

    Relative paths start at ``base``, an absolute path or URL, and may not leave it. Absolute paths
    and URLs are allowed, and are their own keys. ``source`` names the manifest if ``path`` is a
    copy, and ``sizes`` has the bytes of all files below a URL. Without a split column,
    ``hash_split`` assigns the splits. A column of several labels, see `RowFields`, leaves the
    instances without a label of their own. Other columns are kept as metadata. A missing file is
    still an instance (``num_bytes`` −1), and reading it reports the fault. ``known_classes`` are
    those of a store to update, see `name_classes`.

    Raises:
        UsageError: there is no path column or no row, or a row has no usable path, label or split,
            or repeats a path; the message names the line.
    """
    source = source or str(path)
    columns, rows = read_table(path)
    path_index = find_paths(columns, source)
    fields = RowFields(columns, path_index, label_separator=label_separator)

    drafts = DraftTable()
    label_sets: list[tuple[str, ...] | None] = []
    missing: list[str] = []  # the first few
    num_missing = 0
    for place, values in listing_pulse(source).each(rows):
        where = f"{source} {place}"
        key = read_key(values[path_index], where)
        location = key if key.startswith("/") or is_url(key) else f"{base}/{key}"
        is_far = is_url(location)
        num_bytes = (sizes or {}).get(key, -1) if is_far else file_size(location)
        if num_bytes < 0 and (not is_far or (sizes is not None and not is_url(key))):
            num_missing += 1
            if num_missing <= _SHOWN_MISSING:
                missing.append(key)
        label, split, metadata = fields.read(values, where)
        if isinstance(label, str):
            drafts.append(Draft(key, split, label, location, num_bytes, metadata))
        else:
            drafts.append(Draft(key, split, None, location, num_bytes, metadata))
            label_sets.append(label)
    if not drafts:
        raise UsageError(f"{source} has column names but no rows")
    _refuse_doubles(path, source, drafts, path_index)
    named: Sequence[Draft] = drafts
    if fields.has_sets:
        named, classes, warnings = name_drafts(
            [*drafts], label_sets, has_sets=True, known=known_classes
        )
    else:
        names, classes = name_classes(drafts.given_classes, known=known_classes)
        drafts.rename_classes(names)
        warnings = rewritten_remarks(drafts.given_classes, known=known_classes)
    if missing:
        warnings.append(
            f"{num_missing} of {len(drafts)} files are not there: {examples(missing)} "
            f"(relative paths start at {shown(base)})"
        )
    return assemble(
        as_text(source),
        "manifest",
        named,
        classes=classes,
        warnings=warnings,
        hash_split=hash_split,
        label_places=(
            f"labels are looked for in the columns {', '.join(LABEL_COLUMNS)} and "
            f"{LABELS_COLUMN}; the table has "
            f"{', '.join(map(shown, columns[:12]))}"
        ),
    )


def find_paths(columns: Sequence[str], source: str) -> int:
    """Return the index of the column of paths.

    Raises:
        UsageError: there is none.
    """
    lower = [name.lower() for name in columns]
    found = next((lower.index(name) for name in PATH_COLUMNS if name in lower), None)
    if found is None:
        near = next((hint for name in PATH_COLUMNS if (hint := nearest(name, columns))), "")
        raise UsageError(
            f"{source} has the columns {', '.join(map(shown, columns[:12])) or '(none)'}; expected "
            f"one of {', '.join(PATH_COLUMNS)} in its first line{near}"
        )
    return found


Label: TypeAlias = str | tuple[str, ...] | None
"""One label, or several."""


def name_drafts(
    drafts: list[Draft], labels: Sequence[Label], *, has_sets: bool, known: Sequence[str] = ()
) -> tuple[list[Draft], tuple[str, ...], list[str]]:
    """Return the drafts with their classes, all classes, and warnings; see `name_classes`."""
    if has_sets:
        sets = [label if isinstance(label, tuple) else None for label in labels]
        flat = (name for found in sets for name in found or ())
        return *name_label_sets(drafts, sets, known=known), rewritten_remarks(flat, known=known)
    own = [label if isinstance(label, str) else None for label in labels]
    names, classes = name_classes(own, known=known)
    named = [draft._replace(class_name=name) for draft, name in zip(drafts, names, strict=True)]
    return named, classes, rewritten_remarks(own, known=known)


class RowFields:
    """Columns of a table of files: label, split, and metadata.

    Without a column of single labels, or with a ``label_separator``, a column ``labels`` has
    several of them.

    Args:
        columns: their names; label and split are matched in lower case.
        file_index: index of the column that names the files.
        label_separator: separator of the labels in a text; makes a column of single labels one of
            several. None for the default.
        takes_sets: False to keep a column ``labels`` as metadata without a separator.
    """

    def __init__(
        self,
        columns: Sequence[str],
        file_index: int,
        *,
        label_separator: str | None = None,
        takes_sets: bool = True,
    ) -> None:
        lower = [name.lower() for name in columns]
        names = LABEL_COLUMNS if label_separator is None else (LABELS_COLUMN, *LABEL_COLUMNS)
        self._label = next((lower.index(name) for name in names if name in lower), None)
        self.has_sets = label_separator is not None and self._label is not None
        """True if there is a column of several labels."""
        if self._label is None and takes_sets and LABELS_COLUMN in lower:
            self._label, self.has_sets = lower.index(LABELS_COLUMN), True
        self._separator = label_separator or SEPARATOR
        self._split = lower.index(SPLIT_COLUMN) if SPLIT_COLUMN in lower else None
        special = {file_index, self._label, self._split}
        self._extra = [pair for pair in enumerate(columns) if pair[0] not in special]

    @property
    def has_labels(self) -> bool:
        """True if there is a column of labels."""
        return self._label is not None

    def read(
        self, values: Sequence[object], where: str
    ) -> tuple[Label, str | None, tuple[tuple[str, object], ...]]:
        """Return label or labels, split and metadata of a row, None if there is no such column.

        Raises:
            UsageError: the label is a list, or the split is not a plain word.
        """
        split = None if self._split is None else read_split(values[self._split], where)
        metadata = tuple((name, values[index]) for index, name in self._extra)
        if self._label is None:
            return None, split, metadata
        value = values[self._label]
        if not self.has_sets:
            return read_label(value, where), split, metadata
        metadata = tuple(pair for pair in metadata if pair[0] != LABELS_COLUMN)
        return read_label_set(value, where, separator=self._separator), split, metadata


def _refuse_doubles(path: Path, source: str, drafts: DraftTable, path_index: int) -> None:
    """Refuse two rows of one key, in 8 bytes a row; a doubtful table is read once more.

    Raises:
        UsageError: a key is repeated; the message names the places of the first such row.
    """
    hashes = np.fromiter(
        (hash(drafts.key_bytes(row)) for row in range(len(drafts))), np.int64, len(drafts)
    )
    ordered = np.sort(hashes)
    doubtful = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not doubtful:
        return
    places: dict[str, str] = {}
    for (place, values), found in zip(read_table(path)[1], hashes.tolist(), strict=True):
        if found in doubtful:
            key = read_key(values[path_index], place)
            if key in places:
                raise UsageError(
                    f"{source}: {shown(key)} is in {places[key]} and in {place}; drop one"
                )
            places[key] = place


def read_key(value: object, where: str) -> str:
    """Return the key of a row: its path, relative to the base or absolute, or its URL.

    Raises:
        UsageError: it is no path, or leaves the base.
    """
    if not isinstance(value, str):
        raise UsageError(f"{where} has a {type(value).__name__} for a path; expected text")
    if not value or "\0" in value:
        raise UsageError(f"{where} has {'an empty' if not value else 'a NUL byte in its'} path")
    if value.startswith("/") or is_url(value):
        return value
    key = posixpath.normpath(value)
    if key == ".." or key.startswith("../"):
        raise UsageError(
            f"{where}: {shown(value)} leaves the folder that paths start at; "
            "write an absolute path, or give another root"
        )
    return key


def file_size(path: str) -> int:
    """Return the bytes of a plain file; −1 if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a million of them
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def read_split(value: object, where: str) -> str:
    """Return the split that a row names.

    Raises:
        UsageError: the split is missing or not a plain word.
    """
    name = "" if value is None else str(value).strip()
    name = SPLIT_NAMES.get(name.lower(), name)
    if not _SPLIT.fullmatch(name):
        raise UsageError(
            f"{where} has the split {shown(name) or '(nothing)'}; "
            "expected train, val, test or another plain word"
        )
    return name
