"""Find out what kind of source a path is, and list it."""

import os
import re
from pathlib import Path

from seit.errors import UsageError
from seit.modality import Modality
from seit.tokenize.sources.braces import expand, has_braces
from seit.tokenize.sources.corpus import Corpus, nearest, shown
from seit.tokenize.sources.folder import list_folder
from seit.tokenize.sources.manifest import list_manifest
from seit.tokenize.sources.media import EXTENSIONS, check_media, check_window_keys, is_medium
from seit.tokenize.sources.remote import list_remote
from seit.tokenize.sources.remote_files import is_url
from seit.tokenize.sources.tars import find_tars, list_tars
from seit.tokenize.sources.walk import Remarks, walk

_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


def list_corpus(
    source: str | Path,
    *,
    val_fraction: float = 0.1,
    root: Path | None = None,
    modality: Modality = "image",
) -> Corpus:
    """List every instance of a source.

    Args:
        source: the path or URL (``s3://…``) of a folder of class folders or images, a .csv or
            .parquet manifest, a .tar file, a folder of .tar files, or a brace pattern of them
            ("train-{000..012}.tar").
        val_fraction: share of the instances that go to val where the source names no splits,
            0 ≤ x < 1. Whether one does depends on its key alone.
        root: where the relative paths of a manifest start; its own folder when None.
        modality: what the tokenizer takes. Files are listed whatever their names are, and found
            out when they are read; members of tars only if their names are those of that kind.

    Raises:
        UsageError: the source is missing, empty or of no such kind, its manifest is wrong, or
            it holds nothing but files of the other modality.
        DamagedError: a tar file is truncated or corrupt.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction is {val_fraction}; expected 0 or more, and less than 1")
    text = str(source)
    try:
        if is_url(text):
            corpus = list_remote(text, val_fraction=val_fraction, root=root, modality=modality)
        else:
            corpus = _list(text, Path(source), val_fraction, root, modality)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(text)} cannot be read: {reason}") from None
    if corpus.kind != "webdataset":
        check_media(text, corpus.instances, modality)
    if modality == "audio":
        check_window_keys(corpus.instances)
    return corpus


def _list(
    text: str, path: Path, val_fraction: float, root: Path | None, modality: Modality
) -> Corpus:
    suffix = path.suffix.lower()
    is_manifest = path.is_file() and suffix in (".csv", ".tsv", ".parquet")
    if root is not None and not is_manifest:
        raise UsageError(f"{shown(text)} is no manifest; root is for .csv and .parquet files only")
    if is_manifest:
        base = str((root or path.parent).absolute())
        return list_manifest(path, val_fraction=val_fraction, base=base)
    if path.is_dir():
        return _list_dir(text, path, val_fraction, modality)
    if path.is_file():
        if _COMPRESSED_TAR.search(path.name):
            raise UsageError(f"{shown(text)} is a compressed tar; decompress it to .tar first")
        if suffix == ".tar":
            return list_tars(
                text, [path], path.parent, val_fraction=val_fraction, modality=modality
            )
        for kind, extensions in EXTENSIONS.items():
            if suffix[1:] in extensions:
                what = "image" if kind == "image" else "clip"
                folder = shown(str(path.parent))
                raise UsageError(f"{shown(text)} is one {what}; give the folder it is in: {folder}")
        raise UsageError(
            f"{shown(text)} is no corpus; expected a folder, or a .csv, .parquet or .tar file"
        )
    if path.exists():
        raise UsageError(f"{shown(text)} is neither a folder nor a plain file")
    if has_braces(text):
        return _list_pattern(text, val_fraction, modality)
    parent = path.parent
    beside = [item.name for item in parent.iterdir()] if parent.is_dir() else []
    hint = nearest(path.name, beside) if beside else f"; {shown(str(parent))} is missing too"
    raise UsageError(f"{shown(text)} does not exist{hint}")


def _list_dir(text: str, path: Path, val_fraction: float, modality: Modality) -> Corpus:
    if (path / "store.json").is_file():
        raise UsageError(f"{shown(text)} is a token store already; give the folder of its files")
    tars = find_tars(path)
    compressed = [item.name for item in path.iterdir() if _COMPRESSED_TAR.search(item.name)]
    if (tars or compressed) and not _has_media(path):
        if compressed:
            name = shown(str(path / min(compressed)))
            raise UsageError(f"{name} is a compressed tar; decompress it to .tar first")
        return list_tars(text, tars, path, val_fraction=val_fraction, modality=modality)
    return list_folder(path, val_fraction=val_fraction)


def _has_media(path: Path) -> bool:
    """Whether an image or clip lies below, as in a folder whose archive was left beside it."""
    return any(
        is_medium(entry.name)
        for _, found in walk(str(path), Remarks())
        for entry in found
        if not entry.is_folder
    )


def _list_pattern(text: str, val_fraction: float, modality: Modality) -> Corpus:
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
    files = [name.absolute() for name in paths]
    return list_tars(text, files, base, val_fraction=val_fraction, modality=modality)
