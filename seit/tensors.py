"""Safetensors files with a card: JSON in their metadata that describes the tensors.

All files of named tensors are read and written here. Readers withstand arbitrary bytes: headers are
bounded, and any fault raises a ``DamagedError``. Torch is imported late, since stores are read
without it.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from safetensors import SafetensorError, numpy as for_numpy, safe_open

from seit.documents import parse_json, reason_of
from seit.errors import DamagedError
from seit.files import new_file, open_plain, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 1 << 24
"""Largest header, which holds names, shapes and metadata of all tensors."""
_CARD_KEY = "seit"
_NUMBERS = {"float64": "F64", "float32": "F32", "int64": "I64"}
_RESTORE = "restore it from a copy"


def tensor_bytes(
    tensors: "Mapping[str, Tensor]",
    *,
    card: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Return the bytes of a file of tensors, which may be on any device.

    Args:
        tensors: tensors by name.
        card: JSON-serializable description of the tensors.
        metadata: further text by name.
    """
    from safetensors.torch import save

    texts = dict(metadata or {})
    if card is not None:
        texts[_CARD_KEY] = json.dumps(card, sort_keys=True)
    on_host = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    return save(on_host, texts or None)


def header_bytes(
    entries: Mapping[str, tuple[str, tuple[int, ...], int]],
    *,
    card: Mapping[str, Any],
    num_bytes: int = 0,
) -> bytes:
    """Return the head of a file of tensors, which are to follow it one after another.

    Args:
        entries: dtype in safetensors' words, shape and size in bytes by name, in order.
        card: JSON-serializable description of the tensors.
        num_bytes: size to fill up to with blanks; a multiple of 8.
    """
    header: dict[str, Any] = {"__metadata__": {_CARD_KEY: json.dumps(card, sort_keys=True)}}
    start = 0
    for name, (dtype, shape, size) in entries.items():
        offsets = [start, start + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        start += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(max(num_bytes - 8, -(-len(text) // 8) * 8))
    return struct.pack("<Q", len(text)) + text


def array_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the bytes of a file of arrays, identical to those of equal tensors."""
    data: bytes = for_numpy.save(dict(arrays))
    return data


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a file of arrays of float64, float32 or int64 atomically, without a copy of them all.

    Raises:
        SeitError: the file cannot be written.
    """
    entries = {
        name: (_NUMBERS[one.dtype.name], one.shape, one.nbytes) for name, one in arrays.items()
    }
    with new_file(path) as file:
        file.write(header_bytes(entries, card={}))
        for one in arrays.values():
            file.write(one.tobytes())


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", *, card: Mapping[str, Any] | None = None
) -> None:
    """Write a file of tensors atomically; arguments as in :func:`tensor_bytes`.

    Raises:
        SeitError: the file cannot be written.
    """
    write_atomically(path, tensor_bytes(tensors, card=card))


def read_tensors(
    path: Path, *, fault: str = "damaged", advice: str = _RESTORE
) -> "dict[str, Tensor]":
    """Read all tensors of a file, by name.

    Args:
        path: path of the file.
        fault: the error's word for an invalid file.
        advice: what the error suggests to do.

    Raises:
        DamagedError: the file is not a regular file, or damaged.
    """
    return _read(path, fault, advice)[0]


def read_card(
    path: Path, *, fault: str = "damaged", advice: str = _RESTORE, finite: bool = False
) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """Read the card and all tensors of a file.

    Args:
        path: path of the file.
        fault: the error's word for an invalid file.
        advice: what the error suggests to do.
        finite: whether NaN and infinity are refused.

    Raises:
        DamagedError: the file is not a regular file, has no card, or is damaged.
    """
    tensors, metadata = _read(path, fault, advice)
    with _explained(path, fault, advice):
        if finite and (name := first_not_finite(tensors)) is not None:
            raise ValueError(f"{name} is not finite")
        return _parse_card(metadata), tensors


def read_described(path: Path) -> "tuple[dict[str, Any] | None, dict[str, Tensor]]":
    """Read the card of a file, None if it has none, and all its tensors.

    Raises:
        DamagedError: the file is not a regular file, or damaged.
    """
    tensors, metadata = _read(path, "damaged", _RESTORE)
    if _CARD_KEY not in metadata:
        return None, tensors
    with _explained(path, "damaged", _RESTORE):
        return _parse_card(metadata), tensors


def read_description(path: Path) -> "dict[str, Any] | None":
    """Read the card of a file, None if it has none, and no tensor.

    Raises:
        DamagedError: the file is not a regular file, or damaged.
    """
    with _explained(path, "damaged", _RESTORE):
        with open_plain(path) as file:
            _check_header(file.read(8))
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        return _parse_card(metadata) if _CARD_KEY in metadata else None


@dataclass(frozen=True)
class StoredTensor:
    """Entry of a file of tensors.

    Attributes:
        dtype: dtype in safetensors' words, such as F32.
        shape: sizes.
        start: offset in the file, in bytes.
        num_bytes: size in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


def list_tensors(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of a file by name, from its header alone.

    Raises:
        DamagedError: the file is not a regular file, or damaged.
    """
    with _explained(path, "damaged", _RESTORE):
        with open_plain(path) as file:
            size = _check_header(file.read(8))
            header = parse_json(file.read(size))
        with safe_open(path, framework="np") as opened:  # checks the header against the file
            names = list(opened.keys())
        return {name: _entry(header[name], 8 + size) for name in names}


def _entry(described: Mapping[str, Any], first: int) -> StoredTensor:
    begin, end = described["data_offsets"]
    return StoredTensor(described["dtype"], tuple(described["shape"]), first + begin, end - begin)


def read_arrays(path: Path, *, advice: str = _RESTORE) -> dict[str, npt.NDArray[Any]]:
    """Read all tensors of a file as arrays, by name.

    Raises:
        DamagedError: the file is not a regular file, or damaged.
    """
    with _explained(path, "damaged", advice):
        with open_plain(path) as file:
            _check_header(file.read(8))
        return dict(for_numpy.load_file(path))


def parse_arrays(
    data: bytes, *, origin: Path | str, fault: str = "damaged", advice: str = _RESTORE
) -> dict[str, npt.NDArray[Any]]:
    """Parse the bytes of a file as arrays, by name.

    Args:
        data: bytes of the file.
        origin: source of the bytes, for the error.
        fault: the error's word for invalid bytes.
        advice: what the error suggests to do.

    Raises:
        DamagedError: the bytes are damaged.
    """
    with _explained(origin, fault, advice):
        _check_header(data[:8])
        return dict(for_numpy.load(data))


def parse_card(data: bytes) -> dict[str, Any]:
    """Parse the card of a file's bytes.

    Raises:
        ValueError: there is none.
    """
    size = _check_header(data[:8])
    header = parse_json(data[8 : 8 + size])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return _parse_card(metadata if isinstance(metadata, dict) else {})


def first_not_finite(tensors: "Mapping[str, Tensor]") -> str | None:
    """Return the name of the first tensor with a NaN or infinity; synchronizes the device once."""
    import torch

    named = {
        key: one
        for key, one in tensors.items()
        # Four-bit floats are always finite, and torch cannot test them.
        if one.is_floating_point() and one.numel() and one.dtype != torch.float4_e2m1fn_x2
    }
    if not named:
        return None
    flags = torch.stack([one.isfinite().all() for one in named.values()])
    return next((key for key, fine in zip(named, flags.tolist(), strict=True) if not fine), None)


def _read(path: Path, fault: str, advice: str) -> "tuple[dict[str, Tensor], dict[str, str]]":
    with _explained(path, fault, advice):
        with open_plain(path) as file:
            _check_header(file.read(8))
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}


def _parse_card(metadata: Mapping[str, Any]) -> dict[str, Any]:
    text = metadata.get(_CARD_KEY)
    card = parse_json(text) if isinstance(text, str) else None
    if not isinstance(card, dict):
        raise ValueError(f"its metadata hold no object {_CARD_KEY!r}")
    return card


@contextmanager
def _explained(origin: Path | str, fault: str, advice: str) -> Iterator[None]:
    try:
        yield
    # Arrays of a dtype that NumPy lacks raise a TypeError or a KeyError.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{origin} is {fault} ({reason_of(error)}); {advice}") from error


def _check_header(head: bytes) -> int:
    """Check the size of the header, which is parsed as a whole, by the file's first 8 bytes."""
    size = int(struct.unpack("<Q", head)[0]) if len(head) == 8 else 0
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"its header takes {size:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    return size
