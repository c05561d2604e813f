"""Reader of ranges of rows of tables of files (CSV, JSON Lines, Parquet) as pieces."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seit.errors import UsageError
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.sources.cells import open_parquet, parquet_errors
from seit.ingest.sources.corpus import Draft, Kind, shown
from seit.ingest.sources.manifest import RowFields, file_size, find_paths, read_key
from seit.ingest.sources.parquet_rows import decode_rows
from seit.ingest.sources.remote_files import read_remote
from seit.ingest.sources.tables import Row, plain_row, read_json_rows, read_table
from seit.shards import is_url


@dataclass(frozen=True)
class TablePieces:
    """Reader of ranges of rows; see :class:`~seit.ingest.pieces.piece.PieceSource`.

    Attributes:
        base: folder or URL that relative paths start from.
        header: bytes of the line with the column names; nothing for JSON Lines and Parquet.
        columns: names of the columns of the whole table, as those of a range of JSON Lines may
            be fewer.
    """

    base: str
    header: bytes = b""
    columns: tuple[str, ...] = ()
    label_separator: str | None = None
    overhead: int = 0
    kind: Kind = "manifest"
    mixes: bool = True
    repeats: bool = True

    def read(self, piece: Piece, findings: Findings) -> Iterator[Draft]:  # noqa: ARG002
        """Yield the files of a range of rows.

        Raises:
            UsageError: a row has no usable path, label or split, or may have several labels.
        """
        with tempfile.TemporaryDirectory(prefix="seit-") as folder, _named(piece, folder):
            columns, rows = self._rows(piece, Path(folder))
            index = find_paths(columns, piece.shown)
            fields = RowFields(columns, index, label_separator=self.label_separator)
            if fields.has_sets:
                raise UsageError(
                    f"{piece.name} has several labels per file, which pieces do not take; leave "
                    "--plan pieces out, or name the column otherwise"
                )
            for place, values in rows:
                where = f"{piece.shown} {place}"
                key = read_key(values[index], where)
                location = key if key.startswith("/") or is_url(key) else f"{self.base}/{key}"
                num_bytes = -1 if is_url(location) else file_size(location)
                label, split, metadata = fields.read(values, where)
                assert not isinstance(label, tuple), "several labels are refused"
                yield Draft(key, split, label, location, num_bytes, metadata)

    def _rows(self, piece: Piece, folder: Path) -> tuple[list[str], Iterator[Row]]:
        if piece.name.lower().endswith(".parquet"):
            return _parquet_rows(piece)
        size = piece.stop - piece.start
        data = _read(piece.location, piece.start, size)
        if len(data) < size:
            raise UsageError(f"{shown(piece.location)} has changed; run the same command again")
        path = folder / f"rows{Path(piece.name).suffix}"
        path.write_bytes(self.header + data)
        if piece.name.lower().endswith(".jsonl"):
            return list(self.columns), read_json_rows(path, self.columns)
        return read_table(path, source=piece.shown)


@contextmanager
def _named(piece: Piece, folder: str) -> Iterator[None]:
    """Name the table instead of the copy of its rows in errors."""
    try:
        yield
    except UsageError as error:
        copy, table = (
            str(Path(folder) / "rows"),
            piece.location.removesuffix(Path(piece.name).suffix),
        )
        raise UsageError(str(error).replace(copy, table)) from None


def _parquet_rows(piece: Piece) -> tuple[list[str], Iterator[Row]]:
    file = open_parquet(piece.location, as_dictionaries=True)
    columns = [str(name).strip() for name in file.schema_arrow.names]

    def rows() -> Iterator[Row]:
        with file, parquet_errors(piece.location):
            found = decode_rows(file, where=piece.location, groups=range(piece.start, piece.stop))
            for number, (_, values) in enumerate(found, start=1):
                where = f"row {number}"
                yield where, plain_row(values, f"{piece.shown} {where}")

    return columns, rows()


def _read(location: str, offset: int, size: int) -> bytes:
    if is_url(location):
        return read_remote(location, offset, size)
    with Path(location).open("rb") as file:
        file.seek(offset)
        return file.read(size)
