"""Named tensors of unknown origin: files with small headers, and whether all are finite."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from torch import Tensor

from seit.documents import parse_json, reason_of
from seit.errors import DamagedError
from seit.files import open_plain

MAX_HEADER_BYTES = 1 << 24
"""Largest header: names, shapes and metadata of all tensors."""
_RESTORE = "restore it from a copy"


def read_tensors(path: Path, *, advice: str = _RESTORE) -> dict[str, Tensor]:
    """Read all tensors of a file, by name.

    Raises:
        DamagedError: it is no regular file, or not what was written.
    """
    return read_tensors_and_metadata(path, advice=advice)[0]


def read_tensors_and_metadata(
    path: Path, *, fault: str = "damaged", advice: str = _RESTORE
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file and its metadata, by name.

    Args:
        path: of the file.
        fault: what a file is called that is not what was written.
        advice: what to do about it.

    Raises:
        DamagedError: it is no regular file, or not what was written.
    """
    with _explained(path, advice, fault):
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def read_arrays(path: Path, *, advice: str = _RESTORE) -> dict[str, Any]:
    """Read all tensors of a file as arrays, by name.

    Raises:
        DamagedError: it is no regular file, or not what was written.
    """
    with _explained(path, advice):
        _check_header(path)
        return dict(load_arrays(path))


def parse_card(metadata: dict[str, str], key: str) -> dict[str, Any]:
    """Parse the JSON object that a file's metadata hold under ``key``.

    Raises:
        ValueError: there is none.
    """
    card = parse_json(metadata[key]) if key in metadata else None
    if not isinstance(card, dict):
        raise ValueError(f"its metadata hold no object {key!r}")
    return card


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity; waits for their device once."""
    named = {key: one for key, one in tensors.items() if one.is_floating_point() and one.numel()}
    if not named:
        return None
    flags = torch.stack([one.isfinite().all() for one in named.values()])
    return next((key for key, fine in zip(named, flags.tolist(), strict=True) if not fine), None)


@contextmanager
def _explained(path: Path, advice: str, fault: str = "damaged") -> Iterator[None]:
    try:
        yield
    # Arrays of a dtype that NumPy lacks raise a TypeError or a KeyError.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{path} is {fault} ({reason_of(error)}); {advice}") from error


def _check_header(path: Path) -> None:
    """Look at the size of the header, which would be parsed as a whole."""
    with open_plain(path) as file:
        head = file.read(8)
    size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"its header takes {size:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
