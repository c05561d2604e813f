"""Features as a .parquet file.

Its columns are `key`, `label` int64 (null for an unlabeled sample), `class`, and `features`, a list
of D float32; the names of all classes are in the metadata.

Legend: n samples, D feature dim, B rows of a block.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.documents import parse_json
from seit.errors import DamagedError, UsageError
from seit.training.features.base import (
    BLOCK_BYTES,
    FeatureFile,
    FeatureWriter,
    Origins,
    row_of_origins,
)

_KEY, _LABEL, _CLASS, _FEATURES = "key", "label", "class", "features"
_CARD = b"seit"
MAX_GROUP_BYTES = 256 << 20
"""Largest features of a row group that are read, decoded; an encoded file may be far smaller."""
MAX_INDEX_BYTES = 2 << 30
"""Largest keys and labels of a file that are read, decoded."""
_ROW_BYTES = 72
"""Bytes of a row's label, and of its key as a text of Python, besides its characters."""
_BATCH_ROWS = 1 << 16


class _Card(msgspec.Struct):
    """Metadata of a file."""

    classes: tuple[str, ...]
    origins: Origins


class TableFile(FeatureFile):
    """Open .parquet file of features; the last row group read is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UsageError(f"there is no file {path}; write one with `seit embed`")
        from pyarrow import parquet

        with self._explained():
            # As a dictionary, a key that many rows repeat is decoded once.
            self._file = parquet.ParquetFile(path, read_dictionary=[_KEY])
            schema, metadata = self._file.schema_arrow, self._file.metadata
            card = msgspec.convert(parse_json((schema.metadata or {})[_CARD]), _Card, strict=False)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self.dim = _dim_of(schema)
            for group in groups:
                _check_group(group, dim=self.dim)
            self.classes, self.origins = card.classes, card.origins
            self._bounds = np.cumsum([0, *(group.num_rows for group in groups)])
            self.keys, self.labels = self._index(int(self._bounds[-1]))
        self._held: tuple[int, npt.NDArray[np.float32]] | None = None
        self.check()

    @override
    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        parts, row = [np.empty((0, self.dim), np.float32)], start
        while row < stop:
            group = int(np.searchsorted(self._bounds, row, side="right")) - 1
            first, end = int(self._bounds[group]), min(stop, int(self._bounds[group + 1]))
            parts.append(self._group(group)[row - first : end - first])
            row = end
        return np.concatenate(parts)

    def _index(self, num_rows: int) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Read keys (n,) and labels (n,), batch by batch, up to `MAX_INDEX_BYTES`."""
        from pyarrow import compute

        num_bytes = num_rows * _ROW_BYTES
        _check_index(num_rows, num_bytes)
        keys: list[str] = []
        labels = np.empty(num_rows, np.int64)
        for batch in self._file.iter_batches(_BATCH_ROWS, columns=[_KEY, _LABEL]):
            column, start = batch.column(_KEY), len(keys)
            lengths = compute.binary_length(column.dictionary).take(column.indices)
            num_bytes += compute.sum(lengths).as_py() or 0
            _check_index(num_rows, num_bytes)
            keys += column.dictionary_decode().to_pylist()
            labels[start : len(keys)] = batch.column(_LABEL).fill_null(-1).to_numpy()
        if len(keys) != num_rows or None in keys:
            raise ValueError(f"{len(keys):,} keys, some of them null, of {num_rows:,} rows")
        return tuple(keys), labels

    def _group(self, number: int) -> npt.NDArray[np.float32]:
        """Return the features (n, D) of a row group, decoded batch by batch."""
        if self._held is None or self._held[0] != number:
            self._held = None
            features = np.empty((int(np.diff(self._bounds)[number]), self.dim), np.float32)
            done = 0
            with self._explained():
                for batch in self._file.iter_batches(
                    self.block_rows, row_groups=[number], columns=[_FEATURES]
                ):
                    values = batch.column(_FEATURES).flatten().to_numpy().reshape(-1, self.dim)
                    features[done : done + len(values)] = values
                    done += len(values)
                if done != len(features):
                    raise ValueError(f"{done:,} features of {len(features):,} rows")
            self._held = number, features
        return self._held[1]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from pyarrow import ArrowException

        faults = (ArrowException, OSError, ValueError, TypeError, AttributeError, LookupError)
        try:
            yield
        except DamagedError:
            raise
        except faults as error:
            raise self.damaged(" ".join(str(error).split())[:160]) from error


def _dim_of(schema: Any) -> int:
    """Return D; raise ValueError if the columns have other types than those of a file of features.

    A type of another width would take more memory than is counted.
    """
    from pyarrow import float32, types

    key, label, features = (schema.field(name).type for name in (_KEY, _LABEL, _FEATURES))
    if not types.is_dictionary(key) or not types.is_string(key.value_type):
        raise ValueError(f"its keys are {key}, expected string")
    if not types.is_integer(label):
        raise ValueError(f"its labels are {label}, expected int64")
    if not types.is_fixed_size_list(features) or features.value_type != float32():
        raise ValueError(f"its features are {features}, expected lists of D float32")
    return int(features.list_size)


def _check_group(group: Any, *, dim: int) -> None:
    """Raise ValueError if a row group is larger than `MAX_GROUP_BYTES`, or miscounts its values."""
    rows = group.num_rows
    num_bytes = max(group.total_byte_size, rows * dim * 4)
    if rows < 0 or dim < 1 or num_bytes > MAX_GROUP_BYTES:
        raise ValueError(
            f"a row group of {rows:,} rows × {dim:,} features takes {num_bytes:,} bytes, and at "
            f"most {MAX_GROUP_BYTES:,} are read"
        )
    expected = {_KEY: rows, _LABEL: rows, _FEATURES: rows * dim}
    for number in range(group.num_columns):
        column = group.column(number)
        name, found = column.path_in_schema.partition(".")[0], column.num_values
        if found != expected.get(name, found):
            raise ValueError(f"column {name} of {rows:,} rows has {found:,} values")


def _check_index(num_rows: int, num_bytes: int) -> None:
    """Raise ValueError if keys and labels take more than `MAX_INDEX_BYTES`."""
    if num_bytes > MAX_INDEX_BYTES:
        raise ValueError(
            f"keys and labels of {num_rows:,} rows take {num_bytes:,} bytes or more, and at most "
            f"{MAX_INDEX_BYTES:,} are read; .safetensors has no such limit"
        )


class TableWriter(FeatureWriter):
    """Writes a .parquet file in row groups of about 16 MB."""

    suffix = ".parquet"
    packages = ("pyarrow",)

    def __init__(self, file: BinaryIO, *, classes: Sequence[str], origins: Origins) -> None:
        super().__init__(file, classes=classes, origins=origins)
        self._writer: Any = None
        self._held: list[Any] = []
        self._held_rows = 0

    @override
    def add(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        keys: Sequence[str],
    ) -> None:
        import pyarrow

        dim = features.shape[1]
        known = labels >= 0
        names = [self.classes[label] if label >= 0 else None for label in labels.tolist()]
        values = pyarrow.array(np.ascontiguousarray(features, np.float32).reshape(-1))
        table = pyarrow.table(
            {
                _KEY: pyarrow.array(keys, pyarrow.string()),
                _LABEL: pyarrow.array(labels, pyarrow.int64(), mask=~known),
                _CLASS: pyarrow.array(names, pyarrow.string()),
                _FEATURES: pyarrow.FixedSizeListArray.from_arrays(values, dim),
            }
        )
        card = {"classes": list(self.classes), "origins": row_of_origins(self.origins)}
        table = table.replace_schema_metadata({_CARD: json.dumps(card).encode()})
        if self._writer is None:
            from pyarrow import parquet

            self._writer = parquet.ParquetWriter(self.file, table.schema, compression="zstd")
        self._held.append(table)
        self._held_rows += len(table)
        if self._held_rows * dim * 4 >= BLOCK_BYTES:
            self._flush()

    @override
    def finish(self) -> None:
        if self._held:
            self._flush()

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.concat_tables(self._held))
        self._held, self._held_rows = [], 0

    @classmethod
    @override
    def open(cls, path: Path) -> FeatureFile:
        return TableFile(path)
