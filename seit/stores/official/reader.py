"""Reading of plain, gzip and `.npy` files of any origin, with errors that name the file."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seit.errors import DamagedError, SeitError, UsageError
from seit.npy import NPY_ERRORS


def check_file(path: Path) -> None:
    """Check that a file exists.

    Raises:
        UsageError: it does not.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")


class Unfolded:
    """Gzip file that is read forwards and decompressed only as far as requested."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Unfolded":
        with explained_reads(self.path):
            self._file = gzip.open(self.path, "rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, num_bytes: int) -> bytes:
        """Return the next ``num_bytes``.

        Raises:
            DamagedError: there are fewer, or the gzip is damaged.
        """
        data = self._read(num_bytes)
        if len(data) != num_bytes:
            raise DamagedError(
                f"{self.path} ends where {num_bytes - len(data)} more bytes belong; copy it again"
            )
        return data

    def expect_end(self) -> None:
        """Check that no bytes follow those read.

        Raises:
            DamagedError: there are more.
        """
        if self._read(1):
            raise DamagedError(f"{self.path} continues after its last sample; copy it again")

    def _read(self, num_bytes: int) -> bytes:
        with explained_reads(self.path):
            return self._file.read(num_bytes)


@contextmanager
def explained_reads(path: Path) -> Iterator[None]:
    """Convert errors of reading and decompressing ``path`` to ``SeitError``."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedError(
            f"{path} is not an intact gzip file ({one_line(error)}); copy it again"
        ) from error
    except OSError as error:
        raise SeitError(f"{path} could not be read: {error.strerror or error}") from error


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def read_npy_header(stream: Any, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype from the header of a ``.npy``, and nothing more.

    Raises:
        UsageError: the header is invalid.
    """
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("it is not of .npy version 1.0")
        return np.lib.format.read_array_header_1_0(stream)
    except NPY_ERRORS as error:
        raise UsageError(f"{path} holds no .npy that can be read: {one_line(error)}") from error
