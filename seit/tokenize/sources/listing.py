"""Find out what kind of source a path is, and list it."""

import os
import re
from pathlib import Path

from seit.errors import UsageError
from seit.tokenize.sources.braces import expand, has_braces
from seit.tokenize.sources.corpus import Corpus, nearest, shown
from seit.tokenize.sources.folder import list_folder
from seit.tokenize.sources.manifest import list_manifest
from seit.tokenize.sources.tars import IMAGE_EXTENSIONS, find_tars, list_tars
from seit.tokenize.sources.walk import Remarks, walk

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


def list_corpus(
    source: str | Path, *, val_fraction: float = 0.1, root: Path | None = None
) -> Corpus:
    """List every instance of a source.

    Args:
        source: a folder of class folders or images, a .csv or .parquet manifest, a .tar file, a
            folder of .tar files, or a brace pattern of them ("train-{000..012}.tar").
        val_fraction: share of the instances that go to val where the source names no splits,
            0 ≤ x < 1. Whether one does depends on its key alone.
        root: where the relative paths of a manifest start; its own folder when None.

    Raises:
        UsageError: the source is missing, empty or of no such kind, or its manifest is wrong.
        DamagedError: a tar file is truncated or corrupt.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}; expected 0 or more, and less than 1")
    text = str(source)
    if _URL.match(text):
        raise UsageError(
            f"{shown(text)} is a remote address, which is not supported yet; "
            "copy or mount the corpus and give its folder"
        )
    path = Path(source)
    try:
        return _list(text, path, val_fraction, root)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"{shown(text)} cannot be read: {reason}") from None


def _list(text: str, path: Path, val_fraction: float, root: Path | None) -> Corpus:
    suffix = path.suffix.lower()
    is_manifest = path.is_file() and suffix in (".csv", ".tsv", ".parquet")
    if root is not None and not is_manifest:
        raise UsageError(f"{shown(text)} is no manifest; root is for .csv and .parquet files only")
    if is_manifest:
        return list_manifest(path, val_fraction=val_fraction, root=root)
    if path.is_dir():
        return _list_dir(text, path, val_fraction)
    if path.is_file():
        if _COMPRESSED_TAR.search(path.name):
            raise UsageError(f"{shown(text)} is a compressed tar; decompress it to .tar first")
        if suffix == ".tar":
            return list_tars(text, [path], path.parent, val_fraction=val_fraction)
        if suffix[1:] in IMAGE_EXTENSIONS:
            folder = shown(str(path.parent))
            raise UsageError(f"{shown(text)} is one image; give the folder it is in: {folder}")
        raise UsageError(
            f"{shown(text)} is no corpus; expected a folder, or a .csv, .parquet or .tar file"
        )
    if path.exists():
        raise UsageError(f"{shown(text)} is neither a folder nor a plain file")
    if has_braces(text):
        return _list_pattern(text, val_fraction)
    parent = path.parent
    beside = [item.name for item in parent.iterdir()] if parent.is_dir() else []
    hint = nearest(path.name, beside) if beside else f"; {shown(str(parent))} is missing too"
    raise UsageError(f"{shown(text)} does not exist{hint}")


def _list_dir(text: str, path: Path, val_fraction: float) -> Corpus:
    if (path / "store.json").is_file():
        raise UsageError(f"{shown(text)} is a token store already; give the folder of its images")
    tars = find_tars(path)
    compressed = [item.name for item in path.iterdir() if _COMPRESSED_TAR.search(item.name)]
    if (tars or compressed) and not _has_images(path):
        if compressed:
            name = shown(str(path / min(compressed)))
            raise UsageError(f"{name} is a compressed tar; decompress it to .tar first")
        return list_tars(text, tars, path, val_fraction=val_fraction)
    return list_folder(path, val_fraction=val_fraction)


def _has_images(path: Path) -> bool:
    """Whether an image lies anywhere below, as in a folder whose archive was left beside it."""
    return any(
        entry.name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
        for _, found in walk(str(path), Remarks())
        for entry in found
        if not entry.is_folder
    )


def _list_pattern(text: str, val_fraction: float) -> Corpus:
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
    base = Path(os.path.commonpath([name.absolute().parent for name in paths]))
    return list_tars(text, [name.absolute() for name in paths], base, val_fraction=val_fraction)
