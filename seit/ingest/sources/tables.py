"""Rows of a CSV, JSON Lines or Parquet file: column names, and (place, values) one by one."""

import codecs
import csv
import math
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from seit.errors import UsageError
from seit.ingest.sources.cells import open_parquet, reason_of
from seit.ingest.sources.corpus import shown
from seit.ingest.sources.parquet_rows import decode_rows
from seit.ingest.sources.remote_files import read_remote, remote_size
from seit.shards import is_url

Row = tuple[str, list[object]]
"""("line 7", the values in column order: text, numbers, None, lists, dicts)."""

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Suffixes of tables."""
DELIMITERS = ",;\t"
MAX_COLUMNS = 10_000
MAX_LINE_BYTES = 16 << 20
"""Size limit of a line of JSON."""


def read_table(path: Path, *, source: str | None = None) -> tuple[list[str], Iterator[Row]]:
    """Open a table by its suffix; messages call it ``source``, if given.

    Returns:
        The column names, stripped, and the rows. CSV values are text, short rows are padded with
        "", and missing JSON fields are None.

    Raises:
        UsageError: the file is not such a table; raised at once or during iteration.
    """
    suffix = path.suffix.lower()
    read = _parquet if suffix == ".parquet" else _jsonl if suffix == ".jsonl" else _csv
    columns, rows = read(path)
    doubles = sorted({name for name in columns if columns.count(name) > 1})
    if doubles:
        raise UsageError(
            f"{source or path} has two columns named {shown(doubles[0])}; rename one of them"
        )
    return columns, rows


@contextmanager
def local_table(location: str) -> Iterator[Path]:
    """Provide a table at a path or URL as a local file inside the ``with``.

    Raises:
        UsageError: the file does not exist.
    """
    if not is_url(location):
        yield Path(location)
        return
    with tempfile.TemporaryDirectory(prefix="seit-") as temporary:
        copy = Path(temporary) / location.rpartition("/")[2]
        try:
            copy.write_bytes(read_remote(location, 0, remote_size(location)))
        except OSError as error:
            raise UsageError(f"{shown(location)} cannot be read: {error}") from None
        try:
            yield copy
        except UsageError as error:
            raise UsageError(str(error).replace(str(copy), location)) from None


def _jsonl(path: Path) -> tuple[list[str], Iterator[Row]]:
    columns: dict[str, None] = {}
    for _, fields in _json_lines(path):
        columns.update(dict.fromkeys(fields))
        if len(columns) > MAX_COLUMNS:
            raise UsageError(f"{path} has more than {MAX_COLUMNS:,} fields; expected a table")
    if not columns:
        raise UsageError(f"{path} is empty; expected a JSON object in each line")
    names = list(columns)
    rows = (
        (f"line {number}", [plain(fields.get(name)) for name in names])
        for number, fields in _json_lines(path)
    )
    return names, rows


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (line number, object) of every non-blank line."""
    decoder = msgspec.json.Decoder(dict[str, object])
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise UsageError(f"{path} line {number} has more than {MAX_LINE_BYTES:,} bytes")
                if line.strip():
                    yield number, decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} line {number} is not a JSON object: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    # Choose the most frequent delimiter: quoted names rarely contain delimiters in headers.
    delimiter = max(DELIMITERS, key=header.count)
    lines = csv_lines(path, delimiter)
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{path} is empty; expected a line of column names, then rows")
    columns = [name.strip() for name in first[1]]
    return columns, _csv_rows(path, lines, len(columns))


def csv_lines(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every non-blank line of a CSV file in UTF-8.

    Raises:
        UsageError: the file cannot be read as CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if any(cells):
                    yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None


def _csv_rows(path: Path, lines: Iterator[tuple[int, list[str]]], width: int) -> Iterator[Row]:
    for number, cells in lines:
        if len(cells) > width:
            raise UsageError(
                f"{path} line {number} has {len(cells)} cells; expected {width}, as in its first "
                "line; put quotes around cells with delimiters in them"
            )
        yield f"line {number}", [*cells, *[""] * (width - len(cells))]


def _parquet(path: Path) -> tuple[list[str], Iterator[Row]]:
    file = open_parquet(str(path), as_dictionaries=True)
    columns = [str(name).strip() for name in file.schema_arrow.names]

    def rows() -> Iterator[Row]:
        from pyarrow import ArrowException

        try:
            with file:
                found = decode_rows(
                    file, where=str(path), groups=range(file.metadata.num_row_groups)
                )
                for number, (_, values) in enumerate(found, start=1):
                    yield f"row {number}", [plain(value) for value in values]
        except (ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    return columns, rows()


def plain(value: object) -> object:
    """Convert a value for JSON: NaN becomes None, dates and the like become text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    return str(value)


def _unreadable(path: Path, error: Exception) -> UsageError:
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(path, error)
    kinds = {".parquet": "Parquet", ".jsonl": "JSON Lines"}
    kind = kinds.get(path.suffix.lower(), "UTF-8 CSV")
    return UsageError(f"{path} cannot be read as {kind}: {reason_of(error)}")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> UsageError:
    """Return the error of a text in another encoding, with a guess at it."""
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    name, code = ("UTF-16", "UTF-16") if is_utf16 else ("Latin-1 or Windows-1252", "WINDOWS-1252")
    copy = shlex.quote(str(path.with_name(f"{path.stem}-utf8{path.suffix}")))
    return UsageError(
        f"{path} is not in UTF-8 (byte 0x{error.object[error.start]:02X}) but probably in {name}; "
        f"convert it, as by `iconv -f {code} -t UTF-8 {shlex.quote(str(path))} > {copy}`"
    )
