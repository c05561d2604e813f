"""Folder sources: SRC/{train,val}/<class>/…, SRC/<class>/… or images directly in SRC."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.assemble import assemble
from seit.ingest.sources.corpus import SPLIT_NAMES, Corpus, Draft, examples, shown
from seit.ingest.sources.label_sets import unused_separator
from seit.ingest.sources.layout import Layout, find_layout
from seit.ingest.sources.metadata import apply_metadata, find_metadata, first_metadata
from seit.ingest.sources.splits import HashSplit
from seit.ingest.sources.walk import Entry, Remarks, as_text

LABEL_PLACES = (
    "labels are the names of folders (SRC/CLASS/… or SRC/train/CLASS/…), or the column label, "
    "class or category of a table (a CSV or Parquet manifest, or metadata.csv with file_name)"
)


class _Tree(NamedTuple):
    """Findings of a walk by kind."""

    drafts: list[Draft]
    outside: list[str]
    """Files next to the split folders."""
    beside: list[str]
    """Files next to the class folders."""
    odd: list[str]
    """Keys of files with names that are not UTF-8."""
    empty: list[str]
    """Class folders without files."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        names = {name for draft in self.drafts if (name := draft.class_name) is not None}
        return tuple(sorted(names))


def list_folder(
    source: str,
    root: str,
    folders: deque[tuple[str, list[Entry]]],
    remarks: Remarks,
    *,
    hash_split: HashSplit,
    label_separator: str | None = None,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List a folder; the class of a file is the first folder below the split folder, or below SRC.

    Without split folders, ``hash_split`` assigns the splits. Every visible plain file is an
    instance, whatever its extension; files that are not images are reported when read. Folders of
    files that are surely no images (annotations, notes) are left out. If a metadata.csv, .jsonl or
    .parquet names files (``file_name``), its labels take precedence.

    Odd bytes of names that are not valid UTF-8 are written as %XX in keys and classes.

    Args:
        source: name of the folder in messages.
        root: absolute path or URL of the folder.
        folders: folders of its walk; consumed.
        remarks: remarks of the walk.
        hash_split: split rule of files without split folders.
        label_separator: separator of several labels in a metadata table.
        known_classes: classes of a store to update, for labels of a metadata table.

    Raises:
        UsageError: the folder holds no files, or the meaning of its folders is ambiguous.
    """
    layout = find_layout(source, folders)
    tables = find_metadata(root, (folder for folder in folders if layout.has(folder[0])))
    tree = _sort(root, folders, layout, {table.path for table in tables})
    drafts = tree.drafts
    warnings = _first_remarks(tree, layout, remarks)
    classes = tree.classes
    if tables:
        drafts, classes = apply_metadata(
            tables,
            drafts,
            warnings,
            label_separator=label_separator,
            known_classes=known_classes,
        )
    elif label_separator is not None:
        warnings.append(unused_separator(source))
    warnings += _last_remarks(source, tree, is_labeled=bool(classes and not tables))
    if tree.odd:
        drafts = _unique(drafts, warnings)
    _refuse_none(source, drafts, warnings)
    return assemble(
        as_text(source),
        "folder",
        drafts,
        classes=classes,
        warnings=warnings,
        hash_split=hash_split,
        label_places=LABEL_PLACES,
    )


class Survey(NamedTuple):
    """Meaning of folders that are not listed file by file: layout, classes, and warnings."""

    layout: Layout
    classes: tuple[str, ...]
    warnings: tuple[str, ...]


def survey_folders(
    source: str, root: str, folders: Iterable[tuple[str, Iterable[Entry]]], remarks: Remarks
) -> Survey:
    """Return the meaning of folders by the rules of :func:`list_folder`.

    Args:
        source: name of the folder in messages.
        root: absolute path or URL of the folder.
        folders: folders of its walk with their folders and a few files of each kind, as
            :class:`~seit.ingest.sources.summary.FolderSummary` has them.
        remarks: remarks of the walk.

    Raises:
        UsageError: as for :func:`list_folder`, or a table next to the files names them.
    """
    known = deque((relative, list(entries)) for relative, entries in folders)
    layout = find_layout(source, known)
    table = first_metadata(root, (folder for folder in known if layout.has(folder[0])))
    if table is not None:
        raise UsageError(
            f"{shown(table)} names the files next to it, which --plan pieces does not join; give "
            "that table as SRC, or leave --plan out"
        )
    tree = _sort(root, known, layout, set())
    warnings = _first_remarks(tree, layout, remarks)
    warnings += _last_remarks(source, tree, is_labeled=bool(tree.classes))
    _refuse_none(source, tree.drafts, warnings)
    return Survey(layout, tree.classes, tuple(warnings))


def meaning_of(relative: str, *, has_splits: bool) -> tuple[str | None, str | None]:
    """Return split and class of the files in a folder, given with a final "/"."""
    parts = relative.split("/")[:-1]
    split = SPLIT_NAMES[parts[0].lower()] if has_splits and parts else None
    below = parts[has_splits:]
    return split, as_text(below[0]) if below else None


def _first_remarks(tree: _Tree, layout: Layout, remarks: Remarks) -> list[str]:
    warnings = remarks.lines() + list(layout.warnings)
    return warnings + [f"class folder {shown(name)} holds no files" for name in tree.empty]


def _last_remarks(source: str, tree: _Tree, *, is_labeled: bool) -> list[str]:
    warnings = []
    if tree.outside:
        warnings.append(
            f"left out, as they lie next to the split folders: {examples(tree.outside)}"
            f"{_table_hint(source, tree.outside)}"
        )
    if tree.beside and is_labeled:
        warnings.append(
            f"unlabeled, as they lie next to the class folders: {examples(tree.beside)}"
        )
    if tree.odd:
        warnings.append(
            f"names that are not UTF-8 have their odd bytes as %XX: {examples(tree.odd)}"
        )
    return warnings


def _refuse_none(source: str, drafts: Sequence[Draft], warnings: Sequence[str]) -> None:
    if not drafts:
        why = f" ({'; '.join(warnings)})" if warnings else ""
        raise UsageError(f"{shown(source)} has no files to list{why}; expected images or audio")


def _sort(
    root: str,
    folders: deque[tuple[str, list[Entry]]],
    layout: Layout,
    tables: set[str],
) -> _Tree:
    """Make drafts of all files but the metadata tables; ``folders`` is consumed."""
    has_splits = layout.has_splits
    tree = _Tree([], [], [], [], [])
    occupied: set[str] = set()
    class_folders: set[str] = set()
    while folders:
        relative, found = folders.popleft()
        if not layout.has(relative):
            continue
        parts = relative.split("/")[:-1]
        split, class_name = meaning_of(relative, has_splits=has_splits)
        files = [
            entry
            for entry in found
            if not entry.is_folder and f"{root}/{relative}{entry.name}" not in tables
        ]
        if has_splits and not parts:
            tree.outside.extend(entry.name for entry in files)
            continue
        if class_name is None:
            class_folders.update(
                f"{relative}{entry.name}"
                for entry in found
                if entry.is_folder and layout.has(f"{relative}{entry.name}/")
            )
            tree.beside.extend(f"{relative}{entry.name}" for entry in files)
        elif files:
            occupied.add("/".join(parts[: has_splits + 1]))
        for entry in files:
            path = f"{relative}{entry.name}"
            key = as_text(path)
            if key != path:
                tree.odd.append(key)
            tree.drafts.append(Draft(key, split, class_name, f"{root}/{path}", entry.num_bytes))
    tree.empty.extend(sorted(class_folders - occupied))
    return tree


def _table_hint(source: str, names: Sequence[str]) -> str:
    tables = [name for name in names if name.lower().endswith((".csv", ".tsv", ".parquet"))]
    return f"; to list by a table, give {shown(f'{source}/{tables[0]}')}" if tables else ""


def _unique(drafts: list[Draft], warnings: list[str]) -> list[Draft]:
    """Drop every file whose %XX spelling is also the real name of another."""
    counts = Counter(draft.key for draft in drafts)
    doubles = [key for key, count in counts.items() if count > 1]
    if doubles:
        warnings.append(f"left out, as %XX makes their names the same: {examples(doubles)}")
    return [draft for draft in drafts if counts[draft.key] == 1]
