"""Ranges of rows of tables of files (CSV, JSON Lines, Parquet) as pieces."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seit.errors import UsageError
from seit.ingest.pieces.parquet import ranges_of
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.sources.cells import open_parquet, parquet_errors
from seit.ingest.sources.corpus import Draft, Kind, shown
from seit.ingest.sources.manifest import RowFields, file_size, find_paths, read_key
from seit.ingest.sources.parquet_rows import decode_rows
from seit.ingest.sources.remote_files import StreamedFile, read_remote
from seit.ingest.sources.tables import Row, plain, read_table
from seit.shards import is_url

_PART_BYTES = 8 << 20
_MAX_PIECE_BYTES = 1 << 30
"""Size limit of the text of a piece."""


@dataclass(frozen=True)
class TablePieces:
    """Reader of ranges of rows; see :class:`~seit.ingest.pieces.piece.PieceSource`.

    Attributes:
        base: folder or URL that relative paths start from.
        header: bytes of the line with the column names; nothing for JSON Lines and Parquet.
    """

    base: str
    header: bytes = b""
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
                yield f"row {number}", [plain(value) for value in values]

    return columns, rows()


@dataclass(frozen=True)
class CutTable:
    """Ranges of rows of a table, the number of rows, and the line of column names."""

    pieces: tuple[Piece, ...]
    rows: int
    header: bytes = b""


def cut_table(location: str, name: str, num_bytes: int, *, rows: int) -> CutTable:
    """Cut a table into ranges of ``rows`` rows, or of row groups with at least as many.

    Text is read once, as a stream, for its line ends.

    Raises:
        UsageError: the table cannot be read.
        SeitError: a remote server does not respond.
    """
    if name.lower().endswith(".parquet"):
        with open_parquet(location) as file, parquet_errors(location):
            metadata = file.metadata
            counts = [
                metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)
            ]
        pieces = tuple(
            Piece(name, location, num_bytes, start, stop) for start, stop in ranges_of(counts, rows)
        )
        return CutTable(pieces, sum(counts))
    has_header = not name.lower().endswith(".jsonl")
    ends = _line_ends(location, num_bytes, quotes=has_header)
    header = b""
    start = 0
    if has_header:
        start = next(ends, num_bytes)
        header = _read(location, 0, start)
        if not header.endswith(b"\n"):
            header += b"\n"
    pieces_of_text = []
    held = total = 0
    end = start
    for end in ends:
        held += 1
        total += 1
        if held == rows:
            pieces_of_text.append(_text_piece(name, location, num_bytes, start, end))
            start, held = end, 0
    if num_bytes > end:  # a last line without its end
        total += 1
        held += 1
    if held:
        pieces_of_text.append(_text_piece(name, location, num_bytes, start, num_bytes))
    return CutTable(tuple(pieces_of_text), total, header)


def _text_piece(name: str, location: str, num_bytes: int, start: int, end: int) -> Piece:
    if end - start > _MAX_PIECE_BYTES:
        raise UsageError(
            f"{shown(location)} has {end - start:,} bytes in a range of rows; expected at most "
            f"{_MAX_PIECE_BYTES:,}: check its quotes, or pass a smaller --shard-samples"
        )
    return Piece(name, location, num_bytes, start, end)


def _line_ends(location: str, num_bytes: int, *, quotes: bool) -> Iterator[int]:
    """Yield the offset after each line, except for line ends between ``quotes``."""
    odd = 0
    offset = 0
    for part in _parts(location, num_bytes):
        values = np.frombuffer(part, dtype=np.uint8)
        ends = np.flatnonzero(values == ord("\n"))
        if quotes:
            marks = np.flatnonzero(values == ord('"'))
            ends = ends[(np.searchsorted(marks, ends) + odd) % 2 == 0]
            odd = (odd + len(marks)) % 2
        yield from (ends + offset + 1).tolist()
        offset += len(part)


def _parts(location: str, num_bytes: int) -> Iterator[bytes]:
    if not is_url(location):
        with Path(location).open("rb") as file:
            while part := file.read(_PART_BYTES):
                yield part
        return
    stream = StreamedFile(location)
    try:
        for offset in range(0, num_bytes, _PART_BYTES):
            yield stream.read(offset, _PART_BYTES)
    finally:
        stream.close()


def _read(location: str, offset: int, size: int) -> bytes:
    if is_url(location):
        return read_remote(location, offset, size)
    with Path(location).open("rb") as file:
        file.seek(offset)
        return file.read(size)
