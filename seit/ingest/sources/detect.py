"""Find out what kind of source a path is, and list it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from seit.errors import UsageError
from seit.ingest.sources.braces import expand, has_braces
from seit.ingest.sources.corpus import Corpus, SourceFile, nearest, shown
from seit.ingest.sources.folder import list_folder
from seit.ingest.sources.manifest import list_manifest
from seit.ingest.sources.media import EXTENSIONS, check_media, check_window_keys, is_medium
from seit.ingest.sources.parquet import check_configurations, holds_media, list_parquet
from seit.ingest.sources.remote import list_remote
from seit.ingest.sources.splits import HashSplit
from seit.ingest.sources.tables import TABLES
from seit.ingest.sources.tars import find_tars, list_tars
from seit.ingest.sources.walk import Remarks, as_text, walk
from seit.modality import Modality
from seit.shards import is_url

_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


def list_corpus(
    source: str | Path,
    *,
    val_fraction: float = 0.1,
    root: Path | None = None,
    modality: Modality = "image",
    kept_splits: Mapping[str, str] | None = None,
) -> Corpus:
    """List every instance of a source.

    Args:
        source: the path or URL (``s3://…``) of a folder of class folders or images, a manifest
            (.csv, .jsonl, .parquet), a .tar file, a folder of .tar files, a brace pattern of them
            ("train-{000..012}.tar"), or a .parquet file or a folder of them that holds images.
        val_fraction: share of the instances that go to val where the source names no splits,
            0 ≤ x < 1. A hash of its key says whether one does, but for classes that would have none
            in train or in val; see :class:`HashSplit`.
        root: where the relative paths of a manifest start; its own folder when None.
        modality: what the tokenizer takes. Files are listed whatever their names are, and found
            out when they are read; members of tars only if their names are those of that kind.
        kept_splits: key → split of instances that were split earlier, which stay where they are.

    Raises:
        UsageError: the source is missing, empty or of no such kind, its manifest is wrong, or
            it holds nothing but files of the other modality.
        DamagedError: a tar file is truncated or corrupt.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}; expected 0 or more, and less than 1")
    text = str(source)
    wanted = _Wanted(HashSplit(val_fraction, kept_splits or {}), modality)
    try:
        if is_url(text):
            corpus = list_remote(text, hash_split=wanted.hash_split, root=root, modality=modality)
        else:
            corpus = _list(text, Path(source), root, wanted)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(text)} cannot be read: {reason}") from None
    if corpus.kind in ("folder", "manifest"):
        check_media(text, corpus.instances, modality)
    if modality == "audio":
        check_window_keys(corpus.instances)
    return corpus


class _Wanted(NamedTuple):
    """Rule of the split and modality of a listing."""

    hash_split: HashSplit
    modality: Modality


def _list(text: str, path: Path, root: Path | None, wanted: _Wanted) -> Corpus:
    suffix = path.suffix.lower()
    is_table = path.is_file() and suffix in TABLES
    if root is not None and not is_table:
        raise UsageError(f"{shown(text)} is no manifest; root is for tables of files only")
    if root is None and suffix == ".parquet" and is_table and holds_media(str(path.absolute())):
        return _list_parquets(text, [path.absolute()], path.absolute().parent, wanted)
    if is_table:
        base = str((root or path.parent).absolute())
        return list_manifest(path, hash_split=wanted.hash_split, base=base)
    if path.is_dir():
        return _list_dir(text, path, wanted)
    if path.is_file():
        if _COMPRESSED_TAR.search(path.name):
            raise UsageError(f"{shown(text)} is a compressed tar; decompress it to .tar first")
        if suffix in (".zip", ".7z", ".rar"):
            raise UsageError(f"{shown(text)} is an archive; unpack it and give the folder")
        if suffix == ".tar":
            return list_tars(text, [path], path.parent, **wanted._asdict())
        for kind, extensions in EXTENSIONS.items():
            if suffix[1:] in extensions:
                what = "image" if kind == "image" else "clip"
                folder = shown(str(path.parent))
                raise UsageError(f"{shown(text)} is one {what}; give the folder it is in: {folder}")
        raise UsageError(
            f"{shown(text)} is no corpus; expected a folder, or a .csv, .jsonl, .parquet or .tar "
            "file"
        )
    if path.exists():
        raise UsageError(f"{shown(text)} is neither a folder nor a plain file")
    if has_braces(text):
        return _list_pattern(text, wanted)
    parent = path.parent
    beside = [item.name for item in parent.iterdir()] if parent.is_dir() else []
    hint = nearest(path.name, beside) if beside else f"; {shown(str(parent))} is missing too"
    raise UsageError(f"{shown(text)} does not exist{hint}")


def _list_dir(text: str, path: Path, wanted: _Wanted) -> Corpus:
    if (path / "store.json").is_file():
        raise UsageError(f"{shown(text)} is a token store already; give the folder of its files")
    tars = find_tars(path)
    compressed = [item.name for item in path.iterdir() if _COMPRESSED_TAR.search(item.name)]
    tables = _find_tables(path)
    if (tars or compressed) and tables is not None:
        if compressed:
            name = shown(str(path / min(compressed)))
            raise UsageError(f"{name} is a compressed tar; decompress it to .tar first")
        return list_tars(text, tars, path, **wanted._asdict())
    if tables:
        return _list_tables(text, path, tables, wanted)
    return list_folder(path, hash_split=wanted.hash_split)


def _list_tables(text: str, path: Path, names: list[str], wanted: _Wanted) -> Corpus:
    """List the Parquet files of a folder; those of Arrow are pointed out."""
    parquets = [name for name in names if name.lower().endswith(".parquet")]
    if not parquets:
        raise UsageError(
            f"{shown(text)} holds Arrow files ({shown(names[0])}), as save_to_disk writes them; "
            'write Parquet: datasets.load_from_disk(…)["train"].to_parquet("train.parquet")'
        )
    root = path.absolute()
    return _list_parquets(text, [root / name for name in parquets], root, wanted)


def _list_parquets(text: str, paths: list[Path], base: Path, wanted: _Wanted) -> Corpus:
    files = [
        SourceFile(str(path), as_text(path.relative_to(base).as_posix()), path.parent.name)
        for path in paths
    ]
    check_configurations(text, files)
    return list_parquet(text, files, **wanted._asdict())


def _find_tables(path: Path) -> list[str] | None:
    """The Parquet and Arrow files below a folder; None where an image or a clip lies there too."""
    found = []
    for relative, entries in walk(str(path), Remarks()):
        for entry in entries:
            if entry.is_folder:
                continue
            if is_medium(entry.name):
                return None
            if entry.name.lower().endswith((".parquet", ".arrow")):
                found.append(f"{relative}{entry.name}")
    return sorted(found)


def _list_pattern(text: str, wanted: _Wanted) -> Corpus:
    paths = [Path(name) for name in expand(text)]
    missing = [name for name in paths if not name.is_file()]
    if missing:
        raise UsageError(
            f"{shown(text)} stands for {len(paths)} files, of which {len(missing)} do not exist; "
            f"the first is {shown(str(missing[0]))}"
        )
    compressed = next((name for name in paths if _COMPRESSED_TAR.search(name.name)), None)
    if compressed is not None:
        raise UsageError(f"{shown(str(compressed))} is a compressed tar; decompress it first")
    doubles = len(paths) - len(set(paths))
    if doubles:
        raise UsageError(f"{shown(text)} names {doubles} files twice")
    files = [name.absolute() for name in paths]
    base = Path(os.path.commonpath([name.parent for name in files]))
    if all(name.suffix.lower() == ".parquet" for name in files):
        return _list_parquets(text, files, base, wanted)
    return list_tars(text, files, base, **wanted._asdict())
