"""Rows of a CSV or Parquet file: column names, and (place, values) one after another."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from seit.errors import UsageError
from seit.extras import how_to_install
from seit.tokenize.sources.corpus import shown

Row = tuple[str, list[object]]
"""("line 7", the values in the order of the columns: text, numbers, None, lists, dicts)."""

DELIMITERS = ",;\t"


def read_table(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Open a table by its suffix.

    Returns:
        the column names, stripped, and the rows; CSV values are text, and short rows are filled
        up with "".

    Raises:
        UsageError: at once or while iterating, when the file is not such a table.
    """
    columns, rows = (_parquet if path.suffix.lower() == ".parquet" else _csv)(path)
    doubles = sorted({name for name in columns if columns.count(name) > 1})
    if doubles:
        raise UsageError(f"{path} has two columns named {shown(doubles[0])}; rename one of them")
    return columns, rows


def _csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    # More delimiters than any other: quoted names with delimiters in them are rare in headers.
    delimiter = max(DELIMITERS, key=header.count)
    lines = _csv_lines(path, delimiter)
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{path} is empty; expected a line of column names, then rows")
    columns = [name.strip() for name in first[1]]
    return columns, _csv_rows(path, lines, len(columns))


def _csv_lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every line that is not blank."""
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
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError(
            f"{path} needs pyarrow, which is not installed; {how_to_install('parquet')}"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        columns = [str(name).strip() for name in file.schema_arrow.names]
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None

    def rows() -> Iterator[Row]:
        number = 0
        try:
            with file:
                for batch in file.iter_batches(batch_size=8192):
                    lists = [column.to_pylist() for column in batch.columns]
                    for values in zip(*lists, strict=True):
                        number += 1
                        yield f"row {number}", [_plain(value) for value in values]
        except (ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    return columns, rows()


def _plain(value: object) -> object:
    """Make a value that JSON can hold; NaN is no value, dates and the like become text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return str(value)


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = " ".join((getattr(error, "strerror", None) or str(error)).split())[:160]
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "UTF-8 CSV"
    return UsageError(f"{path} cannot be read as {kind}: {reason}")
