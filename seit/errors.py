"""Errors shown to users. Messages state what was found, what was expected and what to do.

The command line prints a ``SeitError`` as one line and exits with its ``exit_code``.
"""


class SeitError(Exception):
    """Failure that the message explains (exit code 1)."""

    exit_code = 1


class UsageError(SeitError):
    """Invalid usage or input: nothing was started or changed (exit code 2)."""

    exit_code = 2


class DamagedError(SeitError):
    """Stored bytes that are truncated, changed or missing (exit code 1)."""


class ChangedError(SeitError):
    """Replacement of the opened store by another one: open it again (exit code 1)."""


class UnreadableError(SeitError):
    """Input instance that cannot be tokenized; a tokenize job skips and lists it."""
