"""Parquet files with embedded images or audio, as in Hugging Face's datasets.

Their column is {bytes, path}, or plain bytes. Splits come from file names, class names from the
feature description in the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from seit.documents import parse_json
from seit.errors import UsageError
from seit.ingest.sources.assemble import assemble
from seit.ingest.sources.cells import open_parquet, parquet_errors
from seit.ingest.sources.corpus import (
    SPLIT_NAMES,
    Cell,
    Corpus,
    Draft,
    SourceFile,
    examples,
    shown,
)
from seit.ingest.sources.label_sets import (
    LABELS_COLUMN,
    has_label_set,
    read_label_set,
    settle_label_sets,
    with_labels,
)
from seit.ingest.sources.labels import (
    LABEL_COLUMNS,
    name_classes,
    read_label,
    rewritten_remarks,
)
from seit.ingest.sources.manifest import SPLIT_COLUMN, read_split
from seit.ingest.sources.media import NOUNS, other, proposal
from seit.ingest.sources.parquet_rows import decode_rows
from seit.ingest.sources.splits import HashSplit, split_of
from seit.ingest.sources.tables import plain_row
from seit.ingest.sources.walk import as_text
from seit.modality import Modality

MAX_ROWS = 100_000_000
_PREFERRED = ("image", "img", "audio", "sound", "speech", "picture", "photo", "bytes")
_OF_AUDIO = ("audio", "sound", "speech", "wav", "clip", "voice")
_TYPES: dict[str, Modality] = {"Image": "image", "Audio": "audio"}


class _Media(NamedTuple):
    """Column of images or clips: its name, and the dotted names of bytes and of paths."""

    name: str
    modality: Modality
    bytes_leaf: str
    path_leaf: str | None


@dataclass
class MediaTable:
    """Facts about a Parquet file before its rows are read.

    ``labels`` is the column of several labels of a file without one of single labels.
    """

    source: SourceFile
    file: Any
    media: _Media
    label: str | None
    labels: str | None
    split: str | None
    label_names: tuple[str, ...] | None
    extra: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass
class _Rows:
    """Rows of a split, or of a file without one."""

    drafts: list[Draft] = field(default_factory=list)
    paths: list[str | None] = field(default_factory=list)


def holds_media(location: str) -> bool:
    """Return True for a Parquet file of images or audio, not of file paths.

    Raises:
        UsageError: it cannot be read as Parquet.
    """
    with open_parquet(location) as file, parquet_errors(location):
        return bool(_media_columns(file.schema_arrow, _features(file.schema_arrow)))


def list_parquet(
    source: str,
    files: Sequence[SourceFile],
    *,
    hash_split: HashSplit,
    modality: Modality,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List the rows of Parquet files, in the order of the files and their rows.

    A row's key is its split, a slash, and its path; if any row of the split has none, or two share
    one, its number: "train/000123". For a file without a split, its name replaces the split.

    Raises:
        UsageError: a file cannot be read as Parquet, holds nothing of this modality, or has a label
            that is a list or of no class.
    """
    groups: dict[str, _Rows] = {}
    declared: dict[str, None] = {}
    left_out: dict[str, None] = {}
    columns: dict[str, None] = {}
    for number in sorted(range(len(files)), key=lambda number: files[number].relative):
        place = files[number]
        table = open_table(source, place, modality)
        with table.file, parquet_errors(place.location):
            split = split_of(table.source)
            stem = str(PurePosixPath(table.source.relative).with_suffix(""))
            _read_rows(table, split, groups.setdefault(split or stem, _Rows()))
            declared.update(dict.fromkeys(table.label_names or ()))
            left_out.update(dict.fromkeys(table.left_out))
            columns.update(dict.fromkeys(table.file.schema_arrow.names))
    drafts = [draft for prefix, rows in groups.items() for draft in _with_keys(prefix, rows)]
    if not drafts:
        raise UsageError(f"{shown(source)} has columns but no rows")
    given = [draft.class_name for draft in drafts]
    warnings = [] if declared else rewritten_remarks(given, known=known_classes)
    if any(map(has_label_set, drafts)):
        drafts, found = settle_label_sets(drafts, known=known_classes)
        first = [name for name in declared if name in set(found)]
        classes = (*first, *(name for name in found if name not in declared))
    elif declared:
        used = set(given) - {None}
        classes = tuple(name for name in declared if name in used)
        classes += tuple(sorted(name for name in used - declared.keys() if name is not None))
    else:
        names, classes = name_classes(given, known=known_classes)
        drafts = [d._replace(class_name=name) for d, name in zip(drafts, names, strict=True)]
    if left_out:
        warnings.append(f"columns that are not kept, as they hold bytes: {examples([*left_out])}")
    return assemble(
        as_text(source),
        "parquet",
        drafts,
        classes=classes,
        warnings=warnings,
        hash_split=hash_split,
        label_places=(
            f"labels are looked for in the columns {', '.join(LABEL_COLUMNS)}, the only one that "
            f"is declared as a ClassLabel, and {LABELS_COLUMN}; there are "
            f"{', '.join(map(shown, [*columns][:12]))}"
        ),
    )


def check_configurations(source: str, files: Sequence[SourceFile]) -> None:
    """Refuse files of several configurations of one dataset, that is, files in several folders.

    Raises:
        UsageError: there are several; the message names them.
    """
    folders = {
        "/".join(part for part in parents if part.lower() not in SPLIT_NAMES)
        for file in files
        for parents in [PurePosixPath(file.relative).parts[:-1]]
    }
    if len(folders) > 1:
        raise UsageError(
            f"{shown(source)} holds Parquet files in several folders "
            f"({examples(sorted(name or '.' for name in folders))}); give one of them"
        )


def open_table(source: str, file: SourceFile, modality: Modality) -> MediaTable:
    """Open a file and identify its columns."""
    opened = open_parquet(file.location, as_dictionaries=True)
    with parquet_errors(file.location):
        schema = opened.schema_arrow
        features = _features(schema)
        media = _media_columns(schema, features)
    wanted = [column for column in media if column.modality == modality]
    if not wanted:
        if media:
            raise UsageError(proposal(source, other(modality), opened.metadata.num_rows))
        raise UsageError(
            f"{shown(file.location)} has no column of {NOUNS[modality][1]} but "
            f"{', '.join(map(shown, schema.names[:12]))}; expected one of {{bytes, path}} or of "
            "bytes, or a table of paths, which is given as a single file"
        )
    wanted.sort(key=lambda column: column.name.lower() not in _PREFERRED)
    if len(wanted) > 1 and wanted[1].name.lower() in _PREFERRED:
        raise UsageError(
            f"{shown(file.location)} has several columns of {NOUNS[modality][1]}: "
            f"{', '.join(column.name for column in wanted)}; write a table with one of them"
        )
    label = _label_column(schema.names, features)
    lower = {name.lower(): name for name in reversed(schema.names)}
    labels = None if label else lower.get(LABELS_COLUMN)
    names = _declared_names(features.get(label or labels or "", {}))
    split = next((name for name in schema.names if name.lower() == SPLIT_COLUMN), None)
    others = [entry for entry in schema if entry.name not in (wanted[0].name, label, labels, split)]
    return MediaTable(
        source=file,
        file=opened,
        media=wanted[0],
        label=label,
        labels=labels,
        split=split,
        label_names=names,
        extra=tuple(entry.name for entry in others if not _has_bytes(entry.type)),
        left_out=tuple(entry.name for entry in others if _has_bytes(entry.type)),
    )


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return column → feature, from the metadata of Hugging Face's datasets."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        found = parse_json(text)["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _media_columns(schema: Any, features: dict[str, dict[str, Any]]) -> list[_Media]:
    from pyarrow import types

    found = []
    for entry in schema:
        name = entry.name
        kind = features.get(name, {}).get("_type")
        if kind is not None and kind not in _TYPES:
            continue
        leaf, path = name, None
        if types.is_struct(entry.type):
            children = {child.name: child.type for child in entry.type}
            if "bytes" not in children or not _is_bytes(children["bytes"]):
                continue
            leaf, path = f"{name}.bytes", f"{name}.path" if "path" in children else None
        elif not _is_bytes(entry.type):
            continue
        is_audio = any(word in name.lower() for word in _OF_AUDIO)
        modality = _TYPES.get(str(kind), "audio" if is_audio else "image")
        found.append(_Media(name, modality, leaf, path))
    return found


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return any(
        check(kind) for check in (types.is_binary, types.is_large_binary, types.is_binary_view)
    )


def _has_bytes(kind: Any) -> bool:
    """Return True for bytes, and for a list or struct that contains bytes."""
    if _is_bytes(kind):
        return True
    return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _label_column(names: Sequence[str], features: dict[str, dict[str, Any]]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    for name in LABEL_COLUMNS:
        if name in lower:
            return lower[name]
    declared = [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    return declared[0] if len(declared) == 1 else None


def _declared_names(feature: object) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel, or of a list of them."""
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    return (
        tuple(map(str, names))
        if isinstance(names, list)
        else _declared_names(feature.get("feature"))
    )


def _read_rows(table: MediaTable, split: str | None, rows: _Rows) -> None:
    """Append the rows of a file, without keys."""
    for _, draft, path in read_drafts(table, range(table.file.metadata.num_row_groups), split):
        rows.drafts.append(draft)
        rows.paths.append(path)


def read_drafts(
    table: MediaTable, groups: range, split: str | None
) -> Iterator[tuple[int, Draft, str | None]]:
    """Yield the number, the draft without a key, and the path of each row of row groups."""
    metadata = table.file.metadata
    number = sum(metadata.row_group(group).num_rows for group in range(groups.start))
    for group in groups:
        num_bytes = mean_bytes(metadata.row_group(group), table.media.bytes_leaf)
        for row, values in enumerate(row_values(table, group)):
            where = f"{table.source.location} row {number + 1}"
            label = read_class(values.get(table.label), table.label_names, where)
            name = values.get(table.media.name)
            named = name.get("path") if isinstance(name, dict) else None
            fields = tuple((column, values[column]) for column in table.extra)
            if table.labels is not None:
                fields = with_labels(fields, _label_set(values[table.labels], table, where))
            cell = Cell(table.source.location, table.media.bytes_leaf, group, row)
            own = split if table.split is None else read_split(values[table.split], where)
            yield (
                number,
                Draft("", own, label, cell, num_bytes, fields),
                (named if isinstance(named, str) else None),
            )
            number += 1


def row_values(table: MediaTable, group: int) -> Iterator[dict[str | None, object]]:
    """Yield column → value for the rows of a row group, without the bytes."""
    chosen = [*table.extra, *(name for name in (table.label, table.labels, table.split) if name)]
    if table.media.path_leaf:
        chosen.append(table.media.path_leaf)
    if not chosen:
        num_rows = table.file.metadata.row_group(group).num_rows
        if num_rows > MAX_ROWS:
            raise UsageError(f"{table.source.location} declares {num_rows:,} rows in a row group")
        yield from ({} for _ in range(num_rows))
        return
    location = table.source.location
    rows = decode_rows(table.file, where=location, groups=[group], columns=chosen)
    for number, (names, values) in enumerate(rows, start=1):
        where = f"{location} row {number} of row group {group}"
        yield dict(zip(names, plain_row(values, where), strict=True))


def read_class(value: object, names: tuple[str, ...] | None, where: str) -> str | None:
    """Return the class of a label, which may be its number among the declared ``names``.

    Raises:
        UsageError: the number is none of them, or the label is a list.
    """
    if names is None or not isinstance(value, int) or isinstance(value, bool):
        return read_label(value, where)
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise UsageError(f"{where} has the label {value}; its file declares {len(names)} classes")
    return read_label(names[value], where)


def _label_set(value: object, table: MediaTable, where: str) -> tuple[str, ...] | None:
    """Return the labels of a row, which may be numbers among the declared names."""
    names = table.label_names
    if names is not None and isinstance(value, list):
        value = [read_class(one, names, where) for one in value]
    return read_label_set(value, where)


def mean_bytes(group: Any, leaf: str) -> int:
    """Return the mean size of a row's bytes, an estimate that does not require reading them."""
    sizes = [
        int(group.column(index).total_uncompressed_size)
        for index in range(group.num_columns)
        if group.column(index).path_in_schema == leaf
    ]
    return sum(sizes) // max(1, int(group.num_rows))


def _with_keys(prefix: str, rows: _Rows) -> Iterator[Draft]:
    has_names = all(rows.paths) and len(set(rows.paths)) == len(rows.paths)
    for number, (draft, path) in enumerate(zip(rows.drafts, rows.paths, strict=True)):
        yield draft._replace(key=f"{prefix}/{path if has_names else f'{number:06d}'}")
