"""Cutting of tables of files (CSV, JSON Lines, Parquet) into ranges of rows.

Text is read once, as a stream, by the parsers of a listing: so the rows of all ranges are those of
the whole table, and the columns are known before a range is read alone.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path

from seit.errors import UsageError
from seit.ingest.pieces.parquet import ranges_of
from seit.ingest.pieces.piece import Piece
from seit.ingest.sources.cells import open_parquet, parquet_errors
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.remote_files import StreamedFile, read_remote
from seit.ingest.sources.tables import add_columns, choose_delimiter, json_objects, unreadable
from seit.shards import is_url

_PART_BYTES = 8 << 20
_MAX_PIECE_BYTES = 1 << 30
"""Size limit of the text of a piece."""
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class CutTable:
    """Ranges of rows of a table, and what holds for all of them.

    Attributes:
        pieces: the ranges.
        rows: number of rows.
        columns: names of the columns; of JSON Lines the fields of all lines.
        header: bytes up to the first row of CSV; nothing for JSON Lines and Parquet.
    """

    pieces: tuple[Piece, ...]
    rows: int
    columns: tuple[str, ...] = ()
    header: bytes = b""


def cut_table(location: str, name: str, num_bytes: int, *, rows: int) -> CutTable:
    """Cut a table into ranges of ``rows`` rows, or of row groups with at least as many.

    Raises:
        UsageError: the table cannot be read.
        SeitError: a remote server does not respond.
    """
    if name.lower().endswith(".parquet"):
        return _cut_parquet(location, name, num_bytes, rows)
    cut = _cut_json if name.lower().endswith(".jsonl") else _cut_csv
    return cut(location, name, num_bytes, rows)


def _cut_parquet(location: str, name: str, num_bytes: int, rows: int) -> CutTable:
    with open_parquet(location) as file, parquet_errors(location):
        metadata = file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        columns = tuple(str(column).strip() for column in file.schema_arrow.names)
    pieces = tuple(
        Piece(name, location, num_bytes, start, stop) for start, stop in ranges_of(counts, rows)
    )
    return CutTable(pieces, sum(counts), columns)


def _cut_json(location: str, name: str, num_bytes: int, rows: int) -> CutTable:
    lines = _Lines(location, num_bytes, ends=(b"\n",), split=lambda data: BytesIO(data).readlines())
    columns: dict[str, None] = {}
    ranges = _Ranges(name, location, num_bytes, rows)
    for _, fields in json_objects(lines, location):
        add_columns(columns, fields, location)
        ranges.add(lines.offset)
    return CutTable(ranges.pieces(), ranges.total, tuple(columns))


def _cut_csv(location: str, name: str, num_bytes: int, rows: int) -> CutTable:
    lines = _Lines(
        location, num_bytes, ends=(b"\n", b"\r"), split=lambda data: data.splitlines(keepends=True)
    )
    try:
        texts = map(bytes.decode, lines)
        first = next(texts, "").removeprefix(_BYTE_ORDER_MARK)
        found = filter(any, csv.reader(chain([first], texts), delimiter=choose_delimiter(first)))
        columns = [column.strip() for column in next(found, ())]
        start = lines.offset
        ranges = _Ranges(name, location, num_bytes, rows, start=start)
        for _ in found:
            ranges.add(lines.offset)
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(location, error) from None
    header = _read(location, start) if ranges.total else b""
    return CutTable(ranges.pieces(), ranges.total, tuple(columns), header)


class _Ranges:
    """Pieces of ``rows`` rows of a text, found from the offsets where its rows end."""

    def __init__(
        self, name: str, location: str, num_bytes: int, rows: int, *, start: int = 0
    ) -> None:
        self.total = 0
        self._name = name
        self._location = location
        self._num_bytes = num_bytes
        self._rows = rows
        self._pieces: list[Piece] = []
        self._start = self._end = start

    def add(self, end: int) -> None:
        """Add a row that ends at an offset."""
        self._end = end
        self.total += 1
        if self.total % self._rows == 0:
            self._cut()

    def pieces(self) -> tuple[Piece, ...]:
        """Return the pieces of all rows."""
        if self._end > self._start:
            self._cut()
        return tuple(self._pieces)

    def _cut(self) -> None:
        if self._end - self._start > _MAX_PIECE_BYTES:
            raise _too_large(self._location, self._end - self._start)
        self._pieces.append(
            Piece(self._name, self._location, self._num_bytes, self._start, self._end)
        )
        self._start = self._end


class _Lines:
    """Lines of a text at a path or URL, with their ends, read once.

    Args:
        location: path or URL.
        num_bytes: size of the file.
        ends: bytes that end a line.
        split: splits bytes into lines.
    """

    def __init__(
        self,
        location: str,
        num_bytes: int,
        *,
        ends: tuple[bytes, ...],
        split: Callable[[bytes], list[bytes]],
    ) -> None:
        self.offset = 0
        """Offset after the lines that were taken."""
        self._location = location
        self._num_bytes = num_bytes
        self._ends = ends
        self._split = split

    def __iter__(self) -> Iterator[bytes]:
        for lines in self._batches():
            for line in lines:
                self.offset += len(line)
                yield line

    def _batches(self) -> Iterator[Iterable[bytes]]:
        held: list[bytes] = []
        for part in _parts(self._location, self._num_bytes):
            held.append(part)
            if any(end in part for end in self._ends):
                lines = self._split(b"".join(held))
                # A final "\r" may be half of "\r\n".
                held = [] if lines[-1].endswith(b"\n") else [lines.pop()]
                yield lines
            elif (size := sum(map(len, held))) > _MAX_PIECE_BYTES:
                raise _too_large(self._location, size)
        yield self._split(b"".join(held))


def _too_large(location: str, num_bytes: int) -> UsageError:
    return UsageError(
        f"{shown(location)} has {num_bytes:,} bytes in a range of rows; expected at most "
        f"{_MAX_PIECE_BYTES:,}: check its quotes, or pass a smaller --shard-samples"
    )


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


def _read(location: str, size: int) -> bytes:
    if is_url(location):
        return read_remote(location, 0, size)
    with Path(location).open("rb") as file:
        return file.read(size)
