"""Meaning of the folders of a corpus: splits, classes, or neither."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from seit.errors import UsageError
from seit.ingest.sources.corpus import SPLIT_NAMES, SPLIT_WORD, examples, shown
from seit.ingest.sources.media import is_side_file
from seit.ingest.sources.walk import Entry

Folders = Collection[tuple[str, list[Entry]]]
"""(Relative path with a final "/", or "" for the root; its entries), the root first."""

_HOLDERS = {"image", "images", "img", "imgs", "photos", "pictures", "jpegimages", "frames"}
_HOLDERS |= {"audio", "sounds", "clips", "wav", "wavs", "flac", "data", "files"}
"""Lower-case names of folders that describe the kind of files, not their contents."""


@dataclass(frozen=True)
class Layout:
    """Meaning of the folders of a corpus.

    Attributes:
        has_splits: whether the top folders are splits, and the folders in them classes.
        left_out: folders without images or audio, each with a final "/".
        warnings: one line each.
    """

    has_splits: bool
    left_out: frozenset[str]
    warnings: tuple[str, ...]

    def has(self, relative: str) -> bool:
        """Return True if a folder, given with a final "/", is part of the corpus."""
        if not self.left_out:
            return True
        return self.left_out.isdisjoint(_with_parents(relative))


def find_layout(source: str, folders: Folders) -> Layout:
    """Infer the meaning of folders from their names and contents.

    Raises:
        UsageError: the folders are ambiguous; the message says how to decide.
    """
    _, top_entries = next(iter(folders), ("", []))
    top = [entry.name for entry in top_entries if entry.is_folder]
    useful = _above(folders, lambda entry: not is_side_file(entry.name))
    occupied = _above(folders, lambda _: True)
    splits = [name for name in top if name.lower() in SPLIT_NAMES]
    others = [name for name in top if name not in splits]
    full = [name for name in others if f"{name}/" in useful]
    full_splits = [name for name in splits if f"{name}/" in useful]
    warnings = []
    if len({SPLIT_NAMES[name.lower()] for name in full_splits}) > 1 and full:
        raise UsageError(
            f"{shown(source)} holds the splits {examples(splits)} and next to them "
            f"{examples(full)} with further files, so its classes cannot be known; move "
            "that folder elsewhere, or list the files in a table (path,label,split) and give that"
        )
    has_splits = bool(splits) and not full and bool(full_splits or not others)
    if not has_splits:
        _refuse_hidden_splits(source, folders, full_splits + full)
        if full_splits and full:
            warnings.append(
                f"{examples(full_splits)} is read as a class, because {examples(full)} lies next "
                "to it; a table (path,label,split) can say otherwise"
            )
    left_out = {f"{name}/" for name in others} if has_splits else set[str]()
    if left_out:
        warnings.append(
            "left out, as they hold no images or audio next to the split folders: "
            f"{examples(others)}"
        )
    # If all class folders hold only notes, reading the files reports the fault.
    classes = [
        path
        for path in _class_folders(folders, has_splits)
        if left_out.isdisjoint(_with_parents(path))
    ]
    notes = [path for path in classes if path not in useful and path in occupied]
    if notes and any(path in useful for path in classes):
        left_out |= set(notes)
        warnings.append(
            "left out, as they hold no images or audio next to the class folders: "
            f"{examples([path[:-1] for path in notes])}"
        )
    warnings += _deep_remarks(folders, {path for path in classes if path in useful})
    return Layout(has_splits, frozenset(left_out), tuple(warnings))


def _above(folders: Folders, is_wanted: Callable[[Entry], bool]) -> set[str]:
    """Return the folders with a wanted file anywhere below them."""
    above: set[str] = set()
    for relative, found in folders:
        if relative not in above and any(
            not entry.is_folder and is_wanted(entry) for entry in found
        ):
            above.update(_with_parents(relative))
    return above


def _with_parents(relative: str) -> Iterator[str]:
    """Yield the path of a folder and of its parents, each with a final "/"."""
    end = relative.find("/")
    while end >= 0:
        yield relative[: end + 1]
        end = relative.find("/", end + 1)


def _class_folders(folders: Folders, has_splits: bool) -> list[str]:
    """Return the paths of class folders, each with a final "/"."""
    return [path for path, _ in folders if path.count("/") == has_splits + 1]


def _refuse_hidden_splits(source: str, folders: Folders, names: Sequence[str]) -> None:
    """Refuse splits one folder deeper, and folders with names such as seg_train and seg_test."""
    wanted = {f"{name}/" for name in names}
    inner = {
        relative[:-1]: [
            entry.name for entry in found if entry.is_folder and entry.name.lower() in SPLIT_NAMES
        ]
        for relative, found in folders
        if relative in wanted
    }
    deep = [
        name
        for name in names
        if len({SPLIT_NAMES[word.lower()] for word in inner.get(name, ())}) > 1
    ]
    if len(deep) * 2 > len(names):
        place = shown(f"{source.rstrip('/')}/{deep[0]}")
        others = "" if len(deep) == 1 else ", or list the files in a table (path,label,split)"
        raise UsageError(
            f"{shown(source)} holds splits one folder deeper than expected: "
            f"{examples(inner[deep[0]])} in {examples(deep)}; give {place}{others}"
        )
    words = [word for name in names if (word := SPLIT_WORD.search(name.lower()))]
    meant = {SPLIT_NAMES[word[1]] for word in words}
    if len(words) * 2 > len(names) and len(meant) > 1 and "train" in meant:
        raise UsageError(
            f"{shown(source)} holds {examples(names)}, which look like splits but are not named "
            "so; name them train, val and test, or list the files in a table (path,label,split)"
        )


def _deep_remarks(folders: Folders, classes: set[str]) -> list[str]:
    """Return a warning if all classes have one name that is probably not a class."""
    names = {path.rstrip("/").rpartition("/")[2] for path in classes}
    if len(names) != 1:
        return []
    (name,) = names
    inner = sorted(
        {
            entry.name
            for relative, found in folders
            if relative in classes
            for entry in found
            if entry.is_folder
        }
    )
    if len(inner) > 1:
        return [
            f"{shown(name)} is read as the only class, though it holds the folders "
            f"{examples(inner)}; if these are the classes, move them up or give that folder as SRC"
        ]
    if name.lower() in _HOLDERS:
        return [
            f"{shown(name)} is read as the only class; if it is none, note that labels of pictures "
            "are read from the names of folders or from a table (path,label), not from annotations"
        ]
    return []
