"""Suppression of a library's warnings, only in the threads that request it.

Pillow warns about odd metadata (broken EXIF, unknown TIFF tags) that does not affect pixels.
``warnings.catch_warnings`` is not thread-safe, so one filter entry, which matches only in threads
inside ``quiet``, stays at the head of ``warnings.filters``. (The TIFF library prints remarks on
damaged files to stderr; they cannot be suppressed here.)
"""

import threading
import warnings
from types import TracebackType


class Quiet:
    """Context manager that silences warnings in the threads inside its block only.

    An instance is also the message pattern of its own filter entry: for each warning the
    interpreter calls ``match`` of the head filters and applies the first that returns True.
    """

    def __init__(self) -> None:
        self._inside = threading.local()
        self._lock = threading.Lock()
        self._entry = ("ignore", self, Warning, None, 0)

    def match(self, _message: str) -> bool:
        """Return True inside the ``with`` block."""
        return getattr(self._inside, "depth", 0) > 0

    def __enter__(self) -> None:
        # Others add filters too, and catch_warnings restores whole lists, so keep ours at the head.
        filters: list[object] = warnings.filters  # type: ignore[assignment]
        if next(iter(filters), None) is not self._entry:
            with self._lock:
                filters.insert(0, self._entry)
                for index in reversed(range(1, len(filters))):
                    if filters[index] is self._entry:
                        del filters[index]
        self._inside.depth = getattr(self._inside, "depth", 0) + 1

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._inside.depth -= 1


quiet = Quiet()
"""Instance of this process, for use in a ``with``."""
