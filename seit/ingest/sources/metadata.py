"""Metadata tables in folders, as in Hugging Face's imagefolder and audiofolder.

A ``metadata.csv``, ``.jsonl`` or ``.parquet`` in a folder has a column ``file_name`` with paths
relative to that folder. Its label column, if any, takes precedence over folder names; its column
``split`` counts if no folders are splits.
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.corpus import Draft, examples, shown
from seit.ingest.sources.manifest import Label, RowFields, name_drafts
from seit.ingest.sources.media import is_side_file
from seit.ingest.sources.tables import Row, local_table, read_table
from seit.ingest.sources.walk import Entry
from seit.numbers import counted

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"


class Metadata(NamedTuple):
    """Table: its path or URL, its folder ("train/"), and its contents."""

    path: str
    folder: str
    columns: list[str]
    rows: list[Row]

    @property
    def file_index(self) -> int:
        """Index of the column of files."""
        return self.columns.index(FILE_COLUMN)


class _Said(NamedTuple):
    """Entry of a table for a file."""

    where: str
    label: Label
    split: str | None
    metadata: tuple[tuple[str, object], ...]


def find_metadata(root: str, folders: Iterable[tuple[str, list[Entry]]]) -> list[Metadata]:
    """Read the metadata tables; one without a column ``file_name`` is a file like any other.

    Raises:
        UsageError: a table cannot be read in the format of its suffix.
    """
    found = []
    for path, relative in _named_so(root, folders):
        with local_table(path) as copy:
            columns, rows = read_table(copy, source=path)
            if FILE_COLUMN in columns:
                found.append(Metadata(path, relative, columns, list(rows)))
    return found


def first_metadata(root: str, folders: Iterable[tuple[str, Iterable[Entry]]]) -> str | None:
    """Return the path or URL of the first metadata table; None without one.

    Raises:
        UsageError: a table cannot be read in the format of its suffix.
    """
    for path, _ in _named_so(root, folders):
        with local_table(path) as copy:
            columns, _ = read_table(copy, source=path)
            if FILE_COLUMN in columns:
                return path
    return None


def _named_so(
    root: str, folders: Iterable[tuple[str, Iterable[Entry]]]
) -> Iterator[tuple[str, str]]:
    """Yield path and folder of each file that is named like a metadata table."""
    for relative, entries in folders:
        for entry in entries:
            if not entry.is_folder and entry.name.lower() in METADATA_NAMES:
                yield f"{root}/{relative}{entry.name}", relative


def apply_metadata(
    tables: Sequence[Metadata],
    drafts: Sequence[Draft],
    warnings: list[str],
    *,
    label_separator: str | None = None,
    known_classes: Sequence[str] = (),
) -> tuple[list[Draft], tuple[str, ...]]:
    """Apply the labels and metadata of tables to files, with warnings about odd ones.

    Returns:
        The files with their classes, and all classes. A column of several labels wins over folders
        only with a ``label_separator``. ``known_classes`` are as in `name_classes`.

    Raises:
        UsageError: a row has no usable name, two rows name one file, a label is a list, or tables
            differ in whether a file has several labels.
    """
    in_folders = any(draft.class_name is not None for draft in drafts)
    roles = [
        RowFields(
            table.columns,
            table.file_index,
            label_separator=label_separator,
            takes_sets=not in_folders,
        )
        for table in tables
    ]
    if len({fields.has_sets for fields in roles if fields.has_labels}) > 1:
        raise UsageError(
            f"{tables[0].path} and another table differ in whether a file has several labels; give "
            "all tables the column label, or all the column labels"
        )
    said = _read_all(tables, roles)
    has_labels = any(fields.has_labels for fields in roles)
    keys = {draft.key for draft in drafts}
    made = []
    labels: list[Label] = []
    unnamed = []
    for draft in drafts:
        entry = said.get(draft.key)
        metadata = entry.metadata if entry else ()
        split = entry.split if entry and draft.split is None else draft.split
        made.append(draft._replace(split=split, metadata=metadata))
        labels.append(entry.label if entry else None)
        if entry is None and not is_side_file(draft.key):
            unnamed.append(draft.key)
    classes = tuple(sorted({name for draft in drafts if (name := draft.class_name) is not None}))
    if has_labels:
        has_sets = any(fields.has_sets for fields in roles)
        made, classes, remarks = name_drafts(made, labels, has_sets=has_sets, known=known_classes)
        warnings += remarks
    gone = [key for key in said if key not in keys]
    if gone:
        warnings.append(
            f"metadata names {counted(len(gone), 'file')} of {len(said)} that "
            f"{'is' if len(gone) == 1 else 'are'} not there: {examples(gone)}"
        )
    if unnamed:
        warnings.append(
            f"metadata does not name {counted(len(unnamed), 'file')}: {examples(unnamed)}"
        )
    return made, classes


def _read_all(tables: Sequence[Metadata], roles: Sequence[RowFields]) -> dict[str, _Said]:
    """Return key → table entry of the file."""
    said: dict[str, _Said] = {}
    for table, fields in zip(tables, roles, strict=True):
        for place, values in table.rows:
            where = f"{table.path} {place}"
            key = _key(table.folder, values[table.file_index], where)
            if key in said:
                raise UsageError(f"{where}: {shown(key)} is in {said[key].where} too; drop one")
            said[key] = _Said(where, *fields.read(values, where))
    return said


def _key(folder: str, value: object, where: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{where} has no {FILE_COLUMN}; expected the path of a file")
    key = posixpath.normpath(folder + value)
    if value.startswith("/") or key == ".." or key.startswith("../"):
        raise UsageError(f"{where}: {shown(value)} leaves the corpus; give a path inside of it")
    return key
