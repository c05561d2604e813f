"""Detection of the kind of a source, and its listing, with the same rules for paths and URLs."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.braces import expand
from seit.ingest.sources.corpus import SPLIT_NAMES, Corpus, SourceFile, listing_pulse, shown
from seit.ingest.sources.folder import list_folder
from seit.ingest.sources.label_sets import unused_separator
from seit.ingest.sources.manifest import list_manifest
from seit.ingest.sources.media import (
    COMPRESSED_TAR,
    EXTENSIONS,
    check_derived_keys,
    check_media,
    is_medium,
    is_shard,
)
from seit.ingest.sources.parquet import check_configurations, holds_media, list_parquet
from seit.ingest.sources.splits import HashSplit
from seit.ingest.sources.tables import TABLES, local_table
from seit.ingest.sources.tars import list_tars
from seit.ingest.sources.trees import Tree, tree_at
from seit.ingest.sources.walk import Entry, Remarks, as_text
from seit.modality import Modality


def list_corpus(
    source: str | Path,
    *,
    val_fraction: float = 0.1,
    root: Path | None = None,
    modality: Modality = "image",
    kept_splits: Mapping[str, str] | None = None,
    label_separator: str | None = None,
    known_classes: Sequence[str] = (),
) -> Corpus:
    """List every instance of a source.

    Files behind a URL get the same keys, splits, labels and sizes as on a disk.

    Args:
        source: path or URL (``s3://…``) of a folder of class folders or images, a manifest (.csv,
            .jsonl, .parquet), a .tar file, a folder of .tar files, a brace pattern of them
            ("train-{000..012}.tar"), or a .parquet file or folder of them that holds images.
        val_fraction: share of instances assigned to val if the source names no splits, 0 ≤ x < 1.
            The hash of its key decides; see :class:`HashSplit` for exceptions.
        root: base of a manifest's relative paths; None for its own folder.
        modality: modality of the tokenizer. Files are listed whatever their names and checked when
            read; members of tars only if their names match.
        kept_splits: key → split of instances that were split earlier and stay there.
        label_separator: separator of several labels in a text of a table; None for ``|``, and for
            a single label in the columns of these.
        known_classes: classes of a store to update, which labels of tables, tars and Parquet files
            are matched with, those that are numbers by their value.

    Raises:
        UsageError: the source is missing, empty or of an unknown kind, its manifest is invalid, or
            it only holds files of the other modality.
        DamagedError: a tar file is truncated or corrupt.
        SeitError: a remote server does not respond.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}; expected 0 or more, and less than 1")
    text = str(source)
    if label_separator == "":
        raise UsageError("label_separator is empty; expected the text between labels, such as |")
    hash_split = HashSplit(val_fraction, kept_splits or {})
    wanted = _Wanted(hash_split, modality, label_separator, known_classes)
    try:
        corpus = _list(tree_at(text), root, wanted)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(text)} cannot be read: {reason}") from None
    if corpus.kind in ("folder", "manifest"):
        check_media(text, corpus.instances, modality)
    elif label_separator is not None:
        corpus = replace(corpus, warnings=(*corpus.warnings, unused_separator(text)))
    if modality == "audio":
        check_derived_keys(corpus.instances, sign="#", part="window")
    return corpus


class _Wanted(NamedTuple):
    """Split rule, modality, separator of labels and known classes of a listing."""

    hash_split: HashSplit
    modality: Modality
    label_separator: str | None
    known_classes: Sequence[str]


def _list(tree: Tree, root: Path | None, wanted: _Wanted) -> Corpus:
    suffix = PurePosixPath(tree.location).suffix.lower()
    is_file = tree.is_file()
    is_table = is_file and suffix in TABLES
    if root is not None and not is_table:
        raise UsageError(f"{shown(tree.text)} is not a manifest; root is for tables of files only")
    if root is None and tree.is_pattern():
        return _list_pattern(tree.text, wanted)
    if root is None and suffix == ".parquet" and is_table and holds_media(tree.location):
        return _list_parquets(tree.text, [tree.location], _parent(tree.location), wanted)
    if is_table:
        return _list_manifest(tree, root, wanted)
    if is_file:
        _refuse_other_files(tree, suffix)
        return _list_tars(tree.text, [tree.location], _parent(tree.location), wanted)
    tree.check_folder()
    return _list_dir(tree, wanted)


def _refuse_other_files(tree: Tree, suffix: str) -> None:
    """Refuse a file that is not a tar."""
    text = shown(tree.text)
    if COMPRESSED_TAR.search(tree.location):
        raise UsageError(f"{text} is a compressed tar; decompress it to .tar first")
    if suffix in (".zip", ".7z", ".rar"):
        raise UsageError(f"{text} is an archive; unpack it and give the folder")
    for kind, extensions in EXTENSIONS.items():
        if suffix[1:] in extensions:
            what = "image" if kind == "image" else "clip"
            folder = shown(_parent(tree.clean_text) or ".")
            raise UsageError(f"{text} is one {what}; give the folder it is in: {folder}")
    if suffix != ".tar":
        raise UsageError(
            f"{text} is not a corpus; expected a folder, or a .csv, .jsonl, .parquet or .tar file"
        )


def _list_manifest(tree: Tree, root: Path | None, wanted: _Wanted) -> Corpus:
    base = _parent(tree.location) if root is None else str(root.absolute())
    with local_table(tree.clean_text) as copy:
        sizes = tree.sizes_beside() if root is None else None
        return list_manifest(
            copy,
            hash_split=wanted.hash_split,
            base=base,
            source=tree.clean_text,
            sizes=sizes,
            label_separator=wanted.label_separator,
            known_classes=wanted.known_classes,
        )


def _list_dir(tree: Tree, wanted: _Wanted) -> Corpus:
    remarks = Remarks()
    walk = listing_pulse(tree.text).each(tree.walk(remarks), per=lambda folder: len(folder[1]))
    folders = deque(walk)
    refuse_store(tree, folders[0][1])
    names = (
        f"{relative}{entry.name}"
        for relative, entries in folders
        for entry in entries
        if not entry.is_folder
    )
    shards: list[str] = []
    for name in names:
        if is_medium(name):
            break
        if is_shard(name):
            shards.append(name)
    else:
        corpus = _list_shards(tree, shards, wanted)
        if corpus is not None:
            return corpus
    return list_folder(
        tree.clean_text,
        tree.location,
        folders,
        remarks,
        hash_split=wanted.hash_split,
        label_separator=wanted.label_separator,
        known_classes=wanted.known_classes,
    )


def refuse_store(tree: Tree, entries: Iterable[Entry]) -> None:
    """Refuse a folder whose entries are those of a store.

    Raises:
        UsageError: it is one.
    """
    if any(entry.name == "store.json" and not entry.is_folder for entry in entries):
        text = shown(tree.text)
        raise UsageError(f"{text} is a token store already; give the folder of its files")


def _list_shards(tree: Tree, names: Sequence[str], wanted: _Wanted) -> Corpus | None:
    """List the tars or Parquet files of a folder without other media; None if it has none."""
    tars, parquets = shards_among(tree, names)
    if tars:
        return _list_tars(tree.text, tars, tree.location, wanted)
    return _list_parquets(tree.text, parquets, tree.location, wanted) if parquets else None


def shards_among(tree: Tree, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the locations of the tars and of the Parquet files among the files of a folder.

    Tars count in the folder itself and in folders named like a split.

    Raises:
        UsageError: there is a compressed tar, or there are Arrow files alone.
    """
    near = [name for name in names if _is_near(name)]
    compressed = [name for name in near if COMPRESSED_TAR.search(name)]
    if compressed:
        name = shown(f"{tree.clean_text}/{min(compressed)}")
        raise UsageError(f"{name} is a compressed tar; decompress it to .tar first")
    root = tree.location
    tars = sorted(
        (name for name in near if name.endswith(".tar")), key=lambda name: name.split("/")
    )
    tables = sorted(name for name in names if name.lower().endswith((".parquet", ".arrow")))
    parquets = [f"{root}/{name}" for name in tables if name.lower().endswith(".parquet")]
    if tables and not parquets and not tars:
        raise UsageError(
            f"{shown(tree.text)} holds Arrow files ({shown(tables[0])}), as save_to_disk writes "
            'them; write Parquet: datasets.load_from_disk(…)["train"].to_parquet("train.parquet")'
        )
    return [f"{root}/{name}" for name in tars], parquets


def _list_pattern(text: str, wanted: _Wanted) -> Corpus:
    locations = expand_files(text)
    for tree in map(tree_at, locations):
        if not tree.is_file():
            missing = sum(not tree_at(location).is_file() for location in locations)
            raise UsageError(
                f"{shown(text)} stands for {len(locations)} files, of which {missing} do not "
                f"exist; the first is {shown(tree.clean_text)}"
            )
    is_parquet = all(name.lower().endswith(".parquet") for name in locations)
    list_files = _list_parquets if is_parquet else _list_tars
    return list_files(text, locations, common_folder(locations), wanted)


def expand_files(text: str) -> list[str]:
    """Return the locations of the files of a brace pattern, which need not exist.

    Raises:
        UsageError: one is a compressed tar, or is named twice.
    """
    locations = [tree_at(name).location for name in expand(text)]
    compressed = next((name for name in locations if COMPRESSED_TAR.search(name)), None)
    if compressed is not None:
        raise UsageError(f"{shown(compressed)} is a compressed tar; decompress it first")
    doubles = len(locations) - len(set(locations))
    if doubles:
        raise UsageError(f"{shown(text)} names {doubles} files twice")
    return locations


def _list_parquets(text: str, locations: Sequence[str], base: str, wanted: _Wanted) -> Corpus:
    files = [source_file(location, base) for location in locations]
    check_configurations(text, files)
    return list_parquet(
        text,
        files,
        hash_split=wanted.hash_split,
        modality=wanted.modality,
        known_classes=wanted.known_classes,
    )


def _list_tars(text: str, locations: Sequence[str], base: str, wanted: _Wanted) -> Corpus:
    files = [source_file(location, base) for location in locations]
    return list_tars(
        text,
        files,
        hash_split=wanted.hash_split,
        modality=wanted.modality,
        known_classes=wanted.known_classes,
    )


def source_file(location: str, base: str) -> SourceFile:
    """Return the record of a tar or Parquet file of a corpus at ``base``."""
    relative = as_text(location.removeprefix(f"{base}/"))
    return SourceFile(location, relative, _parent(location).rpartition("/")[2])


def _is_near(name: str) -> bool:
    """Return True if a file lies in the folder itself, or in one named like a split."""
    folder = name.rpartition("/")[0]
    return not folder or folder.lower() in SPLIT_NAMES


def _parent(location: str) -> str:
    return location.rpartition("/")[0]


def common_folder(locations: Sequence[str]) -> str:
    """Return the deepest common folder of the files."""
    folders = [location.split("/")[:-1] for location in locations]
    length = min(map(len, folders))
    while any(folder[:length] != folders[0][:length] for folder in folders):
        length -= 1
    return "/".join(folders[0][:length])
