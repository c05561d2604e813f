"""Pieces of a source: what a worker reads at a time."""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from seit.errors import UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.pieces.parquet import ParquetPieces, cut_parquets
from seit.ingest.pieces.piece import Piece, Pieces
from seit.ingest.pieces.tables import TablePieces, cut_table
from seit.ingest.pieces.tars import TarPieces, tar_pieces
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.detect import common_folder, expand_files, shards_among, source_file
from seit.ingest.sources.parquet import check_configurations, holds_media
from seit.ingest.sources.remote import ListedFolder
from seit.ingest.sources.tables import TABLES
from seit.ingest.sources.trees import LocalTree, Tree, tree_at
from seit.ingest.sources.walk import Remarks
from seit.shards import is_url


def find_pieces(source: str | Path, config: TokenizeConfig) -> Pieces:
    """Return the pieces of a source, from names and sizes alone.

    Raises:
        UsageError: the source is missing, or cannot be cut into pieces.
        SeitError: a remote server does not respond.
    """
    tree = tree_at(str(source))
    try:
        return _find(tree, config)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(tree.text)} cannot be read: {reason}") from None


def _find(tree: Tree, config: TokenizeConfig) -> Pieces:
    text = tree.text
    if tree.is_pattern():
        locations = expand_files(text)
        return _of_files(text, locations, common_folder(locations), config)
    if tree.is_file():
        return _of_files(text, [tree.location], tree.location.rpartition("/")[0], config)
    tree.check_folder()
    remarks = Remarks()
    names = [
        f"{relative}{entry.name}"
        for relative, entries in deque(tree.walk(remarks))
        for entry in entries
        if not entry.is_folder
    ]
    tars, parquets = shards_among(tree, names)
    if not tars and not parquets:
        raise UsageError(_UNFIT.format(text=shown(text)))
    return _of_files(text, tars or parquets, tree.location, config)


_UNFIT = (
    "{text} holds neither tars nor Parquet files; --plan pieces reads these, and tables of files "
    "(.csv, .tsv, .jsonl, .parquet): write one, or leave --plan out"
)


def _of_files(text: str, locations: Sequence[str], base: str, config: TokenizeConfig) -> Pieces:
    suffixes = {PurePosixPath(location).suffix.lower() for location in locations}
    if len(suffixes) != 1 or not suffixes <= {".tar", *TABLES}:
        raise UsageError(_UNFIT.format(text=shown(text)))
    (suffix,) = suffixes
    is_table = suffix != ".tar" and not (suffix == ".parquet" and holds_media(locations[0]))
    if config.root is not None and not is_table:
        raise UsageError(f"{shown(text)} is not a manifest; root is for tables of files only")
    sizes = _sizes(locations, base)
    if suffix == ".tar":
        reader = TarPieces(config.modality)
        return Pieces(text, reader, tuple(tar_pieces(locations, base, sizes)))
    if is_table:
        return _of_table(text, locations, sizes, base, config)
    files = [(source_file(location, base), sizes[location]) for location in locations]
    check_configurations(text, [file for file, _ in files])
    pieces: list[Piece] = []
    classes: dict[str, None] = {}
    rows = 0
    for cut in cut_parquets(files, modality=config.modality, rows=config.shard_samples):
        pieces += cut.pieces
        rows += cut.rows
        classes.update(dict.fromkeys(cut.classes or ()))
    if not pieces:
        raise UsageError(f"{shown(text)} has columns but no rows")
    return Pieces(text, ParquetPieces(config.modality), tuple(pieces), rows, tuple(classes) or None)


def _of_table(
    text: str,
    locations: Sequence[str],
    sizes: Mapping[str, int],
    base: str,
    config: TokenizeConfig,
) -> Pieces:
    if len(locations) > 1:
        raise UsageError(
            f"{shown(text)} names {len(locations):,} tables of files; give one, or join them"
        )
    (location,) = locations
    name = location.removeprefix(f"{base}/")
    table = cut_table(location, name, sizes[location], rows=config.shard_samples)
    if not table.pieces:
        raise UsageError(f"{shown(text)} has column names but no rows")
    reader = TablePieces(
        base=base if config.root is None else str(config.root.absolute()),
        header=table.header,
        label_separator=config.label_separator,
    )
    return Pieces(text, reader, table.pieces, table.rows)


def _sizes(locations: Sequence[str], base: str) -> Mapping[str, int]:
    """Return the bytes of files, from one listing of their common folder if they are remote.

    Raises:
        UsageError: a file is missing.
    """
    if is_url(locations[0]):
        listed = ListedFolder(base).sizes()
        sizes = {location: listed.get(location.removeprefix(f"{base}/"), -1)
                 for location in locations}  # fmt: skip
    else:
        sizes = {location: _local_size(location) for location in locations}
    missing = [location for location, size in sizes.items() if size < 0]
    if missing:
        raise UsageError(
            f"{len(missing):,} of {len(sizes):,} files do not exist; the first is "
            f"{shown(missing[0])}"
        )
    return sizes


def _local_size(location: str) -> int:
    return os.stat(location).st_size if LocalTree(location).is_file() else -1  # noqa: PTH116
