"""Compiling inner loops with numba."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter's lock, and keep the machine code where that is possible."""
    make: Callable[..., Any] = njit
    try:
        result: Callable[..., Any] = make(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        result = make(function, nogil=True, error_model="numpy")
    return result
