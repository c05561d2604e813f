"""Row groups of Parquet files with images or audio inside as pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seit.errors import UsageError
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.sources.cells import parquet_errors
from seit.ingest.sources.corpus import Draft, Kind, SourceFile
from seit.ingest.sources.parquet import open_table, read_drafts
from seit.ingest.sources.splits import split_of
from seit.lookahead import map_ahead
from seit.modality import Modality


@dataclass(frozen=True)
class ParquetPieces:
    """Reader of row groups; see :class:`~seit.ingest.pieces.piece.PieceSource`.

    A row's key is its file's path below the corpus, a slash and its number: "a.parquet/000123".
    """

    modality: Modality
    overhead: int = 0
    kind: Kind = "parquet"
    mixes: bool = False
    repeats: bool = False

    def read(self, piece: Piece, findings: Findings) -> Iterator[Draft]:  # noqa: ARG002
        """Yield the rows of a range of row groups.

        Raises:
            UsageError: the file cannot be read as Parquet, has changed since the listing, or has a
                column of several labels.
        """
        table = open_table(piece.name, piece.file, self.modality)
        with table.file, parquet_errors(piece.location):
            if piece.stop > table.file.metadata.num_row_groups:
                raise UsageError(f"{piece.location} has changed; run the same command again")
            if table.labels is not None:
                raise UsageError(
                    f"{piece.name} has several labels per row in the column {table.labels}, which "
                    "pieces do not take; leave --plan pieces out, or rename the column"
                )
            split = split_of(piece.file)
            for number, draft, _ in read_drafts(table, range(piece.start, piece.stop), split):
                yield draft._replace(key=f"{piece.name}/{number:06d}")


@dataclass(frozen=True)
class CutFile:
    """Row groups of a file in ranges, its rows, and the classes that it declares."""

    pieces: tuple[Piece, ...]
    rows: int
    classes: tuple[str, ...] | None


def cut_parquets(
    files: Sequence[tuple[SourceFile, int]], *, modality: Modality, rows: int
) -> Iterator[CutFile]:
    """Cut files, with their sizes in bytes, into ranges of row groups of at least ``rows`` rows.

    Raises:
        UsageError: a file cannot be read as Parquet, or holds nothing of this modality.
    """

    def cut(entry: tuple[SourceFile, int]) -> CutFile:
        file, num_bytes = entry
        table = open_table(file.relative, file, modality)
        with table.file, parquet_errors(file.location):
            metadata = table.file.metadata
            counts = [
                metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)
            ]
        pieces = [
            Piece(file.relative, file.location, num_bytes, start, stop)
            for start, stop in ranges_of(counts, rows)
        ]
        return CutFile(tuple(pieces), sum(counts), table.label_names)

    yield from map_ahead(cut, files)


def ranges_of(counts: Sequence[int], least: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of neighboring groups with at least so many rows; the last may have fewer."""
    start = held = 0
    for number, count in enumerate(counts):
        held += count
        if held >= least:
            yield start, number + 1
            start, held = number + 1, 0
    if held:
        yield start, len(counts)
