"""The errors a user may meet. Each message says what was found, what was expected and what to do.

The command line prints a ``SeitError`` as one line and leaves with its ``exit_code``.
"""


class SeitError(Exception):
    """Something failed that the message explains (exit code 1)."""

    exit_code = 1


class UsageError(SeitError):
    """Wrong usage or wrong input: nothing was started, nothing was changed (exit code 2)."""

    exit_code = 2


class DamagedError(SeitError):
    """Stored bytes are not what was written: truncated, changed or missing (exit code 1)."""


class ChangedError(SeitError):
    """Another store took the place of the one that was opened: open it again (exit code 1)."""


class UnreadableError(SeitError):
    """One input instance cannot be turned into tokens; a tokenize job skips and lists it."""
