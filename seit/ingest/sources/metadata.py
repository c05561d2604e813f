"""Metadata tables in folders, as in Hugging Face's imagefolder and audiofolder.

A ``metadata.csv``, ``.jsonl`` or ``.parquet`` in a folder has a column ``file_name`` with paths
relative to that folder. Its label column, if any, takes precedence over folder names; its column
``split`` counts if no folders are splits.
"""

import posixpath
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.corpus import Draft, examples, shown
from seit.ingest.sources.labels import (
    name_classes,
    rewritten_remarks,
)
from seit.ingest.sources.manifest import RowFields
from seit.ingest.sources.media import is_side_file
from seit.ingest.sources.tables import Row, local_table, read_table
from seit.ingest.sources.walk import Entry

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_COLUMN = "file_name"


class Metadata(NamedTuple):
    """Table: its path or URL, its folder ("train/"), and its contents."""

    path: str
    folder: str
    columns: list[str]
    rows: list[Row]

    @property
    def fields(self) -> RowFields:
        """Roles of the columns."""
        return RowFields(self.columns, self.columns.index(FILE_COLUMN))


class _Said(NamedTuple):
    """Entry of a table for a file."""

    where: str
    label: str | None
    split: str | None
    metadata: tuple[tuple[str, object], ...]


def find_metadata(root: str, folders: Iterable[tuple[str, list[Entry]]]) -> list[Metadata]:
    """Read the metadata tables; one without a column ``file_name`` is a file like any other.

    Raises:
        UsageError: a table cannot be read in the format of its suffix.
    """
    found = []
    for relative, entries in folders:
        for entry in entries:
            if entry.is_folder or entry.name.lower() not in METADATA_NAMES:
                continue
            path = f"{root}/{relative}{entry.name}"
            with local_table(path) as copy:
                columns, rows = read_table(copy, source=path)
                if FILE_COLUMN in columns:
                    found.append(Metadata(path, relative, columns, list(rows)))
    return found


def apply_metadata(
    tables: Sequence[Metadata], drafts: Sequence[Draft], warnings: list[str]
) -> list[Draft]:
    """Apply the labels and metadata of tables to files, with warnings about odd ones.

    Raises:
        UsageError: a row has no usable name, two rows name one file, or a label is a list.
    """
    said = _read_all(tables)
    has_labels = any(table.fields.has_labels for table in tables)
    keys = {draft.key for draft in drafts}
    warnings += rewritten_remarks(entry.label for entry in said.values())
    names, _ = name_classes([entry.label for entry in said.values()])
    class_of = dict(zip(said, names, strict=True))
    made = []
    unnamed = []
    for draft in drafts:
        entry = said.get(draft.key)
        class_name = class_of.get(draft.key) if has_labels else draft.class_name
        metadata = entry.metadata if entry else ()
        split = entry.split if entry and draft.split is None else draft.split
        made.append(draft._replace(class_name=class_name, split=split, metadata=metadata))
        if entry is None and not is_side_file(draft.key):
            unnamed.append(draft.key)
    gone = [key for key in said if key not in keys]
    if gone:
        warnings.append(
            f"{len(gone)} of {len(said)} files that metadata names are not there: {examples(gone)}"
        )
    if unnamed:
        warnings.append(f"{len(unnamed)} files are not named in metadata: {examples(unnamed)}")
    return made


def _read_all(tables: Sequence[Metadata]) -> dict[str, _Said]:
    """Return key → table entry of the file."""
    said: dict[str, _Said] = {}
    for table in tables:
        file_index, fields = table.columns.index(FILE_COLUMN), table.fields
        for place, values in table.rows:
            where = f"{table.path} {place}"
            key = _key(table.folder, values[file_index], where)
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
