"""Folders: SRC/{train,val}/<class>/…, SRC/<class>/… or images directly in SRC."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from seit.errors import UsageError
from seit.tokenize.sources.corpus import SPLIT_NAMES, Corpus, Draft, assemble, examples, shown
from seit.tokenize.sources.walk import Entry, Remarks, as_text, walk


def list_folder(source: Path, *, val_fraction: float) -> Corpus:
    """List a folder; the class of a file is the first folder below the split folder, or below SRC.

    With split folders the splits are theirs; without, an instance is in val when the hash of its
    key, as a fraction, is below ``val_fraction``. Every visible plain file is an instance, whatever
    its extension: what is no image is found out, and listed, when it is read.

    Names that are not valid UTF-8 have the odd bytes written as %XX in keys and classes.

    Raises:
        UsageError: the folder holds no files.
    """
    root = str(source.absolute())
    remarks = Remarks()
    walked = walk(root, remarks)
    return list_tree(str(source), root, walked, remarks, val_fraction=val_fraction)


def list_tree(
    source: str,
    root: str,
    walked: Iterable[tuple[str, list[Entry]]],
    remarks: Remarks,
    *,
    val_fraction: float,
) -> Corpus:
    """List the folders of a walk, which begins at ``root``; see :func:`list_folder`."""
    iterator = iter(walked)
    _, top = next(iterator, ("", []))
    folders = [entry.name for entry in top if entry.is_folder]
    inner: list[str] = []  # the folders in the only folder
    has_splits = bool(folders) and all(name.lower() in SPLIT_NAMES for name in folders)

    drafts: list[Draft] = []
    outside: list[str] = []  # files beside the split folders
    beside: list[str] = []  # files beside the class folders
    odd: list[str] = []  # keys whose files have names that are not UTF-8
    occupied: set[str] = set()
    class_folders: set[str] = set()
    for relative, found in chain([("", top)], iterator):
        if [relative] == [f"{name}/" for name in folders]:
            inner = [entry.name for entry in found if entry.is_folder]
        parts = relative.split("/")[:-1]
        split = SPLIT_NAMES[parts[0].lower()] if has_splits and parts else None
        below = parts[has_splits:]
        class_name = as_text(below[0]) if below else None
        files = [entry for entry in found if not entry.is_folder]
        if has_splits and not parts:
            outside += [entry.name for entry in files]
            continue
        group = "/".join(parts[: has_splits + 1])
        if class_name is None:
            class_folders.update(f"{relative}{entry.name}" for entry in found if entry.is_folder)
            beside += [f"{relative}{entry.name}" for entry in files]
        elif files:
            occupied.add(group)
        for entry in files:
            path = f"{relative}{entry.name}"
            key = as_text(path)
            if key != path:
                odd.append(key)
            drafts.append(Draft(key, split, class_name, f"{root}/{path}", entry.num_bytes))
    classes = sorted({draft.class_name for draft in drafts if draft.class_name is not None})
    warnings = remarks.lines()
    warnings += [
        f"class folder {shown(name)} holds no files" for name in sorted(class_folders - occupied)
    ]
    if outside:
        tables = [name for name in outside if name.lower().endswith((".csv", ".parquet"))]
        hint = f"; to list by a table, give {shown(f'{source}/{tables[0]}')}" if tables else ""
        warnings.append(
            f"left out, as they lie beside the split folders: {examples(outside)}{hint}"
        )
    if beside and classes:
        warnings.append(f"unlabelled, as they lie beside the class folders: {examples(beside)}")
    warnings += _look_like_splits(folders, inner, has_splits)
    if odd:
        warnings.append(f"names that are not UTF-8 have their odd bytes as %XX: {examples(odd)}")
        drafts = _unique(drafts, warnings)
    if not drafts:
        why = f" ({'; '.join(warnings)})" if warnings else ""
        raise UsageError(f"{shown(source)} has no files to list{why}; expected images or audio")
    return assemble(
        as_text(source),
        "folder",
        drafts,
        classes=classes,
        warnings=warnings,
        val_fraction=val_fraction,
    )


def _look_like_splits(folders: list[str], inner: list[str], has_splits: bool) -> list[str]:
    """Warn when split folders were probably meant, but are read as classes."""
    if has_splits:
        return []
    splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    if len(splits) > 1:
        others = examples([name for name in folders if name not in splits])
        return [f"{', '.join(splits)} are read as classes, because {others} lies beside them"]
    if inner and all(name.lower() in SPLIT_NAMES for name in inner):
        name = shown(folders[0])
        return [f"{name} is read as the only class, but holds splits; give {name} itself?"]
    return []


def _unique(drafts: list[Draft], warnings: list[str]) -> list[Draft]:
    """Leave out every file whose %XX spelling is also the real name of another."""
    counts = Counter(draft.key for draft in drafts)
    doubles = [key for key, count in counts.items() if count > 1]
    if doubles:
        warnings.append(f"left out, as %XX makes their names the same: {examples(doubles)}")
    return [draft for draft in drafts if counts[draft.key] == 1]
