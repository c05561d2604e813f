"""Rows of Parquet files without media, decoded with bounded memory.

A dictionary holds a text once that millions of rows may repeat. Texts are therefore decoded as
dictionaries, rows that share a text share one object, and long texts are refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from seit.errors import UsageError
from seit.ingest.sources.corpus import shown

MAX_TEXT_BYTES = 1 << 20
"""Size limit of a text in a row."""
_MAX_ROWS = 4096
"""Most rows decoded at a time."""
_FEW_ROWS = 16
"""Rows decoded at a time that may each hold a large value, whatever the size of the file."""
_BATCH_BYTES = 64 << 20
_VALUE_BYTES = 8
_SHORT = 256
"""Length of texts that need not be shared."""


def text_columns(schema: Any) -> list[str]:
    """Return the dotted paths of the columns of texts of a Parquet schema."""
    columns = (schema.column(number) for number in range(len(schema)))
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "STRING"
    ]


def decode_rows(
    file: Any, *, where: str, groups: Sequence[int], columns: Sequence[str] | None = None
) -> Iterator[tuple[list[str], tuple[object, ...]]]:
    """Yield the names and the values of the columns of each row.

    Args:
        file: file from `open_parquet` with ``as_dictionaries``.
        where: path or URL of the file, for messages.
        groups: numbers of the row groups.
        columns: dotted paths of the columns; None for all.

    Raises:
        UsageError: a text is longer than `MAX_TEXT_BYTES`.
    """
    for group in groups:
        rows = _batch_rows(file, group, columns)
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
            names = batch.schema.names
            longest = [_longest(column) for column in batch.columns]
            for name, num_bytes in zip(names, longest, strict=True):
                if num_bytes > MAX_TEXT_BYTES:
                    raise UsageError(
                        f"{shown(where)} has a text of {num_bytes:,} bytes in the column "
                        f"{shown(name)}; expected at most {MAX_TEXT_BYTES:,}: leave the column out"
                    )
            shared: dict[str, str] = {}
            most = max(longest, default=0)
            step = max(1, min(len(batch), _BATCH_BYTES // max(1, most)))
            for start in range(0, len(batch), step):
                part = batch.slice(start, step)
                lists = [_dense(column).to_pylist() for column in part.columns]
                if most > _SHORT:
                    lists = [[_share(value, shared) for value in values] for values in lists]
                for values in zip(*lists, strict=True):
                    yield names, values


def _batch_rows(file: Any, group: int, columns: Sequence[str] | None) -> int:
    """Return how many rows to decode at a time."""
    metadata = file.metadata.row_group(group)
    texts = set(text_columns(file.schema))
    num_bytes: int = 0
    is_risky = False
    for number in range(metadata.num_columns):
        chunk = metadata.column(number)
        path = chunk.path_in_schema
        if columns is not None and not any(f"{path}.".startswith(f"{one}.") for one in columns):
            continue
        num_bytes += max(int(chunk.total_uncompressed_size), int(chunk.num_values) * _VALUE_BYTES)
        is_risky |= "BYTE_ARRAY" in chunk.physical_type and path not in texts
    mean_bytes = num_bytes // max(1, int(metadata.num_rows))
    most = _FEW_ROWS if is_risky else _MAX_ROWS
    return max(1, min(most, _BATCH_BYTES // max(1, mean_bytes)))


def _longest(array: Any) -> int:
    """Return the bytes of the longest text or bytes in an array of any type."""
    from pyarrow import compute, types

    kind = array.type
    if types.is_dictionary(kind):
        return _longest(array.dictionary)
    if types.is_struct(kind) or types.is_map(kind):
        parts = array.flatten() if types.is_struct(kind) else [array.keys, array.items]
        return max(map(_longest, parts), default=0)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _longest(array.flatten())
    is_text = types.is_string(kind) or types.is_large_string(kind)
    if is_text or types.is_binary(kind) or types.is_large_binary(kind):
        lengths: Any = compute.max(compute.binary_length(array))
        return int(lengths.as_py() or 0)
    return 0


def _dense(array: Any) -> Any:
    """Return an array without dictionaries."""
    kind = _dense_type(array.type)
    return array if kind == array.type else array.cast(kind)


def _dense_type(kind: Any) -> Any:
    from pyarrow import field, list_, struct, types

    if types.is_dictionary(kind):
        return kind.value_type
    if types.is_struct(kind):
        return struct([field(one.name, _dense_type(one.type)) for one in kind])
    if types.is_list(kind):
        return list_(kind.value_field.with_type(_dense_type(kind.value_type)))
    return kind


def _share(value: object, shared: dict[str, str]) -> object:
    """Replace long texts by one object for all equal ones."""
    if isinstance(value, str):
        return shared.setdefault(value, value) if len(value) > _SHORT else value
    if isinstance(value, list):
        return [_share(part, shared) for part in value]
    if isinstance(value, dict):
        return {name: _share(part, shared) for name, part in value.items()}
    return value
