"""Formats of files of features, by suffix.

Legend: n samples, D feature dim.
"""

from pathlib import Path

import numpy as np

from seit.errors import UsageError
from seit.extras import check_installed
from seit.training.features.base import FeatureFile, Features, FeatureWriter
from seit.training.features.table import TableWriter
from seit.training.features.tensors import TensorWriter

FORMATS: dict[str, type[FeatureWriter]] = {one.suffix: one for one in (TensorWriter, TableWriter)}
"""Writer of each suffix."""


def format_of(path: Path) -> type[FeatureWriter]:
    """Return the format that the suffix of a path names.

    Raises:
        UsageError: it names none, or what the format needs is not installed.
    """
    found = FORMATS.get(path.suffix)
    if found is None:
        raise UsageError(f"{path} names no format of features; end it in {' or '.join(FORMATS)}")
    check_installed(found.packages, use="Parquet files", extra="parquet")
    return found


def open_features(path: str | Path) -> FeatureFile:
    """Open a file written by `seit embed`, to read it in blocks.

    Raises:
        UsageError: there is no such file, or pyarrow is missing.
        DamagedError: the file is corrupt.
    """
    return format_of(Path(path)).open(Path(path))


def read_features(path: str | Path) -> Features:
    """Read all of a file written by `seit embed` into memory.

    Raises:
        UsageError: there is no such file, or pyarrow is missing.
        DamagedError: the file is corrupt.
    """
    file = open_features(path)
    values = np.empty((len(file), file.dim), np.float32)
    for start, block in file.blocks():
        values[start : start + len(block)] = block
    return Features(values, file.labels, file.keys, file.classes)
