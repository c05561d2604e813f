"""Small files of a store that its card lists, such as the codebook."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.files import inside, write_atomically
from seit.shards.card import FileRecord
from seit.shards.codecs import Codec
from seit.tensors import array_bytes

CODEBOOK_NAME = "codebook.safetensors"
CODEBOOK_TENSOR = "codebook"
TABLES_TENSOR = "codec.tables"


def record_of(name: str, data: bytes) -> FileRecord:
    """Return the card's entry for a file with this content."""
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def write_listed(folder: Path, contents: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
    """Write files (name → content) into a store's folder and return the card's entries.

    Raises:
        SeitError: the disk is full.
    """
    for name, data in contents.items():
        write_atomically(inside(folder, name), data)
    return tuple(record_of(name, data) for name, data in contents.items())


def codebook_file(codebook: npt.NDArray[np.float32], codec: Codec) -> bytes:
    """Return the content of ``codebook.safetensors``: the codebook and the codec's tables."""
    tensors: dict[str, npt.NDArray[Any]] = {CODEBOOK_TENSOR: codebook}
    if codec.tables is not None:
        tensors[TABLES_TENSOR] = np.frombuffer(codec.tables, dtype=np.uint8)
    data: bytes = array_bytes(tensors)
    return data
