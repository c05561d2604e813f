"""Images and clips in cells of a Parquet file, read row by row with bounded memory.

Cells are read forward, a few rows at a time. Going back before the held rows means reading the row
group again from its start, so rows are best requested in order.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from seit.errors import UnreadableError, UsageError
from seit.extras import how_to_install
from seit.files import RangeFile
from seit.ingest.sources.corpus import Cell, shown
from seit.ingest.sources.parquet_rows import text_columns
from seit.ingest.sources.remote_files import RemoteFile
from seit.shards import is_url

_ROWS = 16
"""Rows decoded at a time."""
_HELD_BYTES = 128 << 20
_MAX_OPEN = 8
_READ_BYTES = 1 << 20
"""Minimum bytes of a column per disk read."""


def open_parquet(location: str, *, as_dictionaries: bool = False, **options: Any) -> Any:
    """Open a Parquet file at a path or URL as ``pyarrow.parquet.ParquetFile``.

    Args:
        location: path or URL.
        as_dictionaries: decode columns of texts as dictionaries, for `decode_rows`.
        options: options of ``ParquetFile``.

    Raises:
        UsageError: pyarrow is missing, or the file cannot be read as Parquet.
    """
    try:
        from pyarrow import PythonFile, parquet
    except ImportError:
        raise UsageError(
            f"{location} needs pyarrow, which is not installed; {how_to_install('parquet')}"
        ) from None
    with parquet_errors(location):
        remote = RemoteFile(location) if is_url(location) else None

        def opened(**more: Any) -> Any:
            place: Any = location
            if remote is not None:
                place = PythonFile(RangeFile(remote.read, remote.num_bytes))
            return parquet.ParquetFile(place, **options, **more)

        if not as_dictionaries:
            return opened()
        with opened() as file:
            metadata, texts = file.metadata, text_columns(file.schema)
        return opened(metadata=metadata, read_dictionary=texts)


@contextmanager
def parquet_errors(location: str) -> Iterator[None]:
    """Convert pyarrow's errors on a damaged file into one that names it.

    Raises:
        UsageError: pyarrow failed.
    """
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, LookupError, RecursionError) as error:
        raise UsageError(f"{location} cannot be read as Parquet: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """Return the first part of an error's message, in one line."""
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:160]


def read_cell(cell: Cell, *, max_bytes: int) -> bytes:
    """Return the contents of a cell; thread-safe.

    Raises:
        UnreadableError: the cell is empty, too large, or cannot be read.
        SeitError: a remote server does not respond.
    """
    data = _open_column(cell.path, cell.column, _version(cell.path)).read(cell.row_group, cell.row)
    if data is None:
        raise UnreadableError(
            "the row holds no bytes, perhaps only the path of a file; write the files into the "
            "table, or list them by their paths"
        )
    if len(data) > max_bytes:
        raise UnreadableError(f"{len(data):,} bytes is more than the limit of {max_bytes:,}")
    return data


def _version(path: str) -> tuple[int, int]:
    """Return time and size of a file, which change if it is replaced."""
    if is_url(path):
        return 0, 0
    try:
        status = os.stat(path)  # noqa: PTH116 - once a row
    except OSError as error:
        raise UnreadableError(f"{shown(Path(path).name)}: {error.strerror}") from None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=_MAX_OPEN)
def _open_column(path: str, column: str, version: tuple[int, int]) -> "_Column":  # noqa: ARG001
    return _Column(path, column)


class _Column:
    """Open column of bytes that decodes rows forward and holds the last ones."""

    def __init__(self, path: str, column: str) -> None:
        try:
            self._file = open_parquet(path, buffer_size=_READ_BYTES)
        except UsageError as error:
            raise UnreadableError(str(error)) from None
        self._column = column
        self._lock = Lock()
        self._held: OrderedDict[tuple[int, int], list[bytes | None]] = OrderedDict()
        self._num_held = 0
        self._group = -1
        self._next = 0
        self._rows: Iterator[bytes | None] = iter(())

    def read(self, group: int, row: int) -> bytes | None:
        """Return the bytes of a row of a row group; None if it has none."""
        start = row - row % _ROWS
        with self._lock:
            while (group, start) not in self._held:
                if group != self._group or start < self._next:
                    self._rewind(group)
                self._advance()
            rows = self._held[group, start]
        if row - start >= len(rows):
            raise UnreadableError("the Parquet file has fewer rows than when it was listed")
        return rows[row - start]

    def _rewind(self, group: int) -> None:
        self._group, self._next = group, 0
        self._rows = self._decode(group)

    def _decode(self, group: int) -> Iterator[bytes | None]:
        from pyarrow import types

        for batch in self._file.iter_batches(
            batch_size=_ROWS, row_groups=[group], columns=[self._column], use_threads=False
        ):
            values = batch.column(0)
            while types.is_struct(values.type):
                values = values.flatten()[0]
            yield from values.to_pylist()

    def _advance(self) -> None:
        """Decode the next rows, and drop the oldest if there are too many."""
        from pyarrow import ArrowException

        try:
            rows = list(islice(self._rows, _ROWS))
        except (ArrowException, OSError, ValueError, LookupError) as error:
            self._group = -1
            raise UnreadableError(f"the Parquet file cannot be read: {reason_of(error)}") from None
        self._held[self._group, self._next] = rows
        self._next += _ROWS
        self._num_held += _size(rows)
        while self._num_held > _HELD_BYTES and len(self._held) > 1:
            self._num_held -= _size(self._held.popitem(last=False)[1])


def _size(rows: list[bytes | None]) -> int:
    return sum(len(row or b"") + 64 for row in rows)
