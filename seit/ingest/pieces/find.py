"""Pieces of a source: what a worker reads at a time."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from seit.errors import UsageError
from seit.ingest.config import TokenizeConfig
from seit.ingest.pieces.cut_tables import cut_table
from seit.ingest.pieces.folders import FolderPieces, cut_folders
from seit.ingest.pieces.parquet import ParquetPieces, cut_parquets
from seit.ingest.pieces.piece import Piece, Pieces
from seit.ingest.pieces.tables import TablePieces
from seit.ingest.pieces.tars import TarPieces, tar_pieces
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.detect import (
    common_folder,
    expand_files,
    refuse_store,
    shards_among,
    source_file,
)
from seit.ingest.sources.folder import survey_folders
from seit.ingest.sources.label_sets import unused_separator
from seit.ingest.sources.media import check_counts
from seit.ingest.sources.parquet import check_configurations, holds_media
from seit.ingest.sources.remote import ListedFolder
from seit.ingest.sources.summary import FolderSummary
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
        pieces = _find(tree, config)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UsageError(f"{shown(tree.text)} cannot be read: {reason}") from None
    if config.label_separator is not None and not isinstance(pieces.reader, TablePieces):
        return replace(pieces, warnings=(*pieces.warnings, unused_separator(tree.text)))
    return pieces


def _find(tree: Tree, config: TokenizeConfig) -> Pieces:
    text = tree.text
    if tree.is_pattern():
        locations = expand_files(text)
        return _of_files(text, locations, common_folder(locations), config)
    if tree.is_file():
        return _of_files(text, [tree.location], tree.location.rpartition("/")[0], config)
    tree.check_folder()
    remarks = Remarks()
    folders = list(tree.summaries(remarks))
    refuse_store(tree, folders[0][1])
    if not any(summary.media for _, summary in folders):
        names = [f"{relative}{name}" for relative, found in folders for name in found.shards]
        tars, parquets = shards_among(tree, names)
        if tars or parquets:
            return _of_files(text, tars or parquets, tree.location, config)
    return _of_folders(tree, folders, remarks, config)


def _of_folders(
    tree: Tree,
    folders: Sequence[tuple[str, FolderSummary]],
    remarks: Remarks,
    config: TokenizeConfig,
) -> Pieces:
    if config.root is not None:
        raise UsageError(_ROOT.format(text=shown(tree.text)))
    survey = survey_folders(tree.clean_text, tree.location, folders, remarks)
    has_splits = survey.layout.has_splits
    kept = [
        (relative, summary)
        for relative, summary in folders
        if survey.layout.has(relative) and (relative or not has_splits)
    ]
    counts: Counter[str] = Counter()
    for _, summary in kept:
        counts.update(summary.media)
    check_counts(tree.clean_text, counts, config.modality)
    is_odd = any(summary.has_odd_names for _, summary in kept)
    reader = FolderPieces(tree.location, has_splits, repeats=is_odd or config.modality == "audio")
    pieces = cut_folders(tree.location, kept, has_splits=has_splits, files=config.shard_samples)
    return Pieces(
        tree.clean_text,
        reader,
        tuple(pieces),
        sum(summary.num_files for _, summary in kept),
        survey.classes or None,
        survey.warnings,
    )


_ROOT = "{text} is not a manifest; root is for tables of files only"
_UNFIT = (
    "{text} is no tar, Parquet file or table of files (.csv, .tsv, .jsonl, .parquet); give one, or "
    "a folder"
)


def _of_files(text: str, locations: Sequence[str], base: str, config: TokenizeConfig) -> Pieces:
    suffixes = {PurePosixPath(location).suffix.lower() for location in locations}
    if len(suffixes) != 1 or not suffixes <= {".tar", *TABLES}:
        raise UsageError(_UNFIT.format(text=shown(text)))
    (suffix,) = suffixes
    is_table = suffix != ".tar" and not (suffix == ".parquet" and holds_media(locations[0]))
    if config.root is not None and not is_table:
        raise UsageError(_ROOT.format(text=shown(text)))
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
        columns=table.columns,
        label_separator=config.label_separator,
    )
    return Pieces(text, reader, table.pieces, table.rows, columns=table.columns)


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
