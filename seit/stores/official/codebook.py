"""Codebook, a bare tensor: read from untrusted files, and written as in the official files.

Legend: K codes, C codebook dimension.
"""

import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.stores.official.reader import check_file, explained_reads, read_npy_header
from seit.tensors import parse_arrays

MAX_CODEBOOK_BYTES = 1 << 28
_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth")
CODEBOOK_SUFFIXES = (*_TORCH_SUFFIXES, ".npy", ".safetensors")
_ZIP_MAGIC = b"PK\3\4"
_LEGACY_PICKLES = 5
"""Pickles in a file of torch before 1.6: magic, version, system, tensor and storages."""
_MAX_PICKLE_STEPS = 1000
"""Limit on pickle steps; a bare tensor takes 50, and a legacy file's system info no more."""
_MAX_PICKLE_REFERENCES = 16
_PICKLE_REFERENCES = ("GET", "BINGET", "LONG_BINGET", "DUP")


def read_codebook(path: Path) -> npt.NDArray[np.float32]:
    """Read a codebook: float32 (K, C), finite.

    The file is a bare torch tensor (``.ckpt``, ``.pt``, ``.pth``; code in its pickle is refused,
    never run), a ``.npy``, or a ``.safetensors`` with a tensor ``codebook``.

    Raises:
        UsageError: the file does not exist, or is not a codebook.
    """
    suffix = path.suffix.lower()
    if suffix not in CODEBOOK_SUFFIXES:
        raise UsageError(f"{path} is not a codebook file; expected {', '.join(CODEBOOK_SUFFIXES)}")
    check_file(path)
    with explained_reads(path):
        if path.stat().st_size > MAX_CODEBOOK_BYTES:
            raise UsageError(f"{path} is larger than {MAX_CODEBOOK_BYTES} bytes: no codebook")
        if suffix in _TORCH_SUFFIXES:
            codebook_KC = _load_torch(path)
        elif suffix == ".npy":
            codebook_KC = _load_npy(path)
        else:
            codebook_KC = _load_safetensors(path)
    return _checked_codebook(codebook_KC, path)


def _load_torch(path: Path) -> npt.NDArray[Any]:
    import torch

    try:
        _check_torch_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(value, torch.Tensor):
            codebook_KC: npt.NDArray[Any] = value.detach().numpy()
            return codebook_KC
    except (SeitError, OSError):
        raise
    except Exception as error:  # torch raises nearly anything on bytes that are not a tensor
        raise UsageError(
            f"{path} cannot be read as a bare tensor ({type(error).__name__}); no code of a pickle "
            "is run: save the float32 (K, C) tensor alone"
        ) from error
    raise UsageError(f"{path} holds a {type(value).__name__} where a bare (K, C) tensor belongs")


def _check_torch_file(path: Path) -> None:
    """Refuse files that would cost torch much memory or time to reject."""
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(file, path)
            return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_CODEBOOK_BYTES:
            raise UsageError(f"{path} unfolds to more than {MAX_CODEBOOK_BYTES} bytes")
        for entry in archive.infolist():
            if entry.filename.lower().endswith(".pkl"):
                with archive.open(entry) as pickle:
                    _check_pickle(pickle, path)


def _check_pickle(file: IO[bytes], path: Path) -> None:
    """Refuse a pickle with more steps or references to its own parts than a tensor's.

    Hashing nested tuples that each hold the last one twice takes 2ⁿ uninterruptible steps.
    """
    references = 0
    for step, (code, _, _) in enumerate(pickletools.genops(file)):
        references += code.name in _PICKLE_REFERENCES
        if step >= _MAX_PICKLE_STEPS or references > _MAX_PICKLE_REFERENCES:
            raise UsageError(f"{path} holds more than a bare (K, C) tensor; save that alone")


def _load_npy(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        shape, is_fortran, dtype = read_npy_header(file, path)
        data = file.read()
    try:
        return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    except ValueError as error:
        raise UsageError(f"{path} does not hold an array {dtype} {shape}: {error}") from error


def _load_safetensors(path: Path) -> npt.NDArray[Any]:
    try:
        fault, advice = "no safetensors file", "save the float32 (K, C) tensor 'codebook'"
        tensors = parse_arrays(path.read_bytes(), origin=path, fault=fault, advice=advice)
    except DamagedError as error:
        raise UsageError(str(error)) from error
    if "codebook" not in tensors:
        raise UsageError(f"{path} holds no tensor 'codebook' but {', '.join(tensors) or 'none'}")
    return tensors["codebook"]


def _checked_codebook(codebook_KC: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float32]:
    shape = codebook_KC.shape
    if codebook_KC.dtype.newbyteorder("=") != np.float32 or len(shape) != 2:
        raise UsageError(
            f"{path} holds {codebook_KC.dtype} {shape} where a codebook is float32 (K, C)"
        )
    if shape[0] < 2 or not 1 <= shape[1] <= 1 << 16 or 4 * shape[0] * shape[1] > MAX_CODEBOOK_BYTES:
        raise UsageError(f"{path} holds a codebook {shape}: too few or too many codes")
    codebook_KC = np.array(codebook_KC, dtype=np.float32, order="C")
    if not np.isfinite(codebook_KC).all():
        raise UsageError(f"{path} holds a codebook with values that are not finite")
    return codebook_KC


def torch_bytes(codebook_KC: npt.NDArray[np.float32]) -> bytes:
    """Return a ``codebook.ckpt``: the tensor (K, C) as saved by torch."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(codebook_KC.copy()), buffer)
    return buffer.getvalue()
