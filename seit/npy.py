"""Errors of invalid `.npy` files."""

from tokenize import TokenError

NPY_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    SyntaxError,
    TokenError,
    RecursionError,
    MemoryError,
)
"""numpy's errors for an invalid `.npy` header."""
