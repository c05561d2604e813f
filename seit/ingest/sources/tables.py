"""Rows of a CSV, JSON Lines or Parquet file: column names, and (place, values) one by one."""

import codecs
import csv
import math
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from seit.documents import MAX_DEPTH
from seit.errors import UsageError
from seit.ingest.sources.cells import open_parquet, parquet_errors, reason_of
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
    for _, fields in _lines_of(path):
        add_columns(columns, fields, str(path))
    if not columns:
        raise UsageError(f"{path} is empty; expected a JSON object in each line")
    return list(columns), read_json_rows(path, list(columns))


def read_json_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a file of JSON Lines: the values of these columns, None if missing.

    Raises:
        UsageError: a line is no JSON object or is nested too deep, or the file cannot be read.
    """
    for number, fields in _lines_of(path):
        where = f"line {number}"
        yield where, plain_row(map(fields.get, columns), f"{path} {where}")


def _lines_of(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    try:
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            yield from json_objects(lines, str(path))
    except OSError as error:
        raise unreadable(str(path), error) from None


def json_objects(lines: Iterable[bytes], source: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (line number, object) of every non-blank line; messages call the file ``source``.

    Raises:
        UsageError: a line is no JSON object, or has more than `MAX_LINE_BYTES` bytes.
    """
    decoder = msgspec.json.Decoder(dict[str, object])
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if len(line) > MAX_LINE_BYTES:
                raise UsageError(f"{source} line {number} has more than {MAX_LINE_BYTES:,} bytes")
            if line.strip():
                yield number, decoder.decode(line)
    except RecursionError:
        raise _too_deep(f"{source} line {number}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} line {number} is not a JSON object: {error}") from None


def add_columns(columns: dict[str, None], fields: Iterable[str], source: str) -> None:
    """Add the fields of a line of JSON to the columns of its table.

    Raises:
        UsageError: there are more than `MAX_COLUMNS` of them.
    """
    columns.update(dict.fromkeys(fields))
    if len(columns) > MAX_COLUMNS:
        raise UsageError(f"{source} has more than {MAX_COLUMNS:,} fields; expected a table")


def _csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(str(path), error) from None
    lines = csv_lines(path, choose_delimiter(header))
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{path} is empty; expected a line of column names, then rows")
    columns = [name.strip() for name in first[1]]
    return columns, _csv_rows(path, lines, len(columns))


def choose_delimiter(header: str) -> str:
    """Return the delimiter that is most frequent in the first line.

    Quoted names rarely contain delimiters in headers.
    """
    return max(DELIMITERS, key=header.count)


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
        raise unreadable(str(path), error) from None


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
        with file, parquet_errors(str(path)):
            found = decode_rows(file, where=str(path), groups=range(file.metadata.num_row_groups))
            for number, (_, values) in enumerate(found, start=1):
                where = f"row {number}"
                yield where, plain_row(values, f"{path} {where}")

    return columns, rows()


def plain_row(values: Iterable[object], where: str) -> list[object]:
    """Convert the values of a row as :func:`plain` does.

    Raises:
        UsageError: a value is nested too deep; the message begins with ``where``.
    """
    try:
        return [plain(value) for value in values]
    except ValueError:
        raise _too_deep(where) from None


def _too_deep(where: str) -> UsageError:
    return UsageError(
        f"{where} has a value that is nested more than {MAX_DEPTH} levels deep; flatten it, or "
        "leave it out"
    )


def plain(value: object, *, levels: int = MAX_DEPTH) -> object:
    """Convert a value for JSON: NaN becomes None, dates and the like become text.

    Raises:
        ValueError: it has more than ``levels`` levels of lists and dicts.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, list | dict):
        return str(value)
    if not levels:
        raise ValueError("it is nested too deep")
    if isinstance(value, list):
        return [plain(part, levels=levels - 1) for part in value]
    return {str(name): plain(part, levels=levels - 1) for name, part in value.items()}


def unreadable(source: str, error: Exception) -> UsageError:
    """Return the error of a table that cannot be read, which names its format."""
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(source, error)
    kinds = {"parquet": "Parquet", "jsonl": "JSON Lines"}
    kind = kinds.get(source.rpartition(".")[2].lower(), "UTF-8 CSV")
    return UsageError(f"{source} cannot be read as {kind}: {reason_of(error)}")


def _not_utf8(source: str, error: UnicodeDecodeError) -> UsageError:
    """Return the error of a text in another encoding, with a guess at it."""
    head = error.object[:2] if error.start == 0 else b""
    is_utf16 = head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    name, code = ("UTF-16", "UTF-16") if is_utf16 else ("Latin-1 or Windows-1252", "WINDOWS-1252")
    stem, _, suffix = source.rpartition(".")
    copy = shlex.quote(f"{stem}-utf8.{suffix}")
    return UsageError(
        f"{source} is not in UTF-8 (byte 0x{error.object[error.start]:02X}) but probably in "
        f"{name}; convert it, as by `iconv -f {code} -t UTF-8 {shlex.quote(source)} > {copy}`"
    )
