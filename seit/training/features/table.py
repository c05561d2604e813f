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
"""Largest row group that is read."""


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
            self._file = parquet.ParquetFile(path)
            schema, metadata = self._file.schema_arrow, self._file.metadata
            card = msgspec.convert(parse_json((schema.metadata or {})[_CARD]), _Card, strict=False)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            if any(group.total_byte_size > MAX_GROUP_BYTES for group in groups):
                raise ValueError(f"a row group takes more than {MAX_GROUP_BYTES:,} bytes")
            self.dim = int(schema.field(_FEATURES).type.list_size)
            self.classes, self.origins = card.classes, card.origins
            self._bounds = np.cumsum([0, *(group.num_rows for group in groups)])
            columns = self._file.read(columns=[_KEY, _LABEL])
            self.keys = tuple(columns[_KEY].to_pylist())
            self.labels = columns[_LABEL].fill_null(-1).to_numpy().astype(np.int64)
            if not all(isinstance(key, str) for key in self.keys):
                raise ValueError("its keys are not texts")
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

    def _group(self, number: int) -> npt.NDArray[np.float32]:
        if self._held is None or self._held[0] != number:
            with self._explained():
                column = self._file.read_row_group(number, columns=[_FEATURES])[_FEATURES]
                values = column.combine_chunks().flatten().to_numpy().astype(np.float32)
                self._held = number, values.reshape(-1, self.dim)
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
