"""Silence for the warnings of a library, in the threads that ask for it and only there.

Pillow warns about odd metadata (broken EXIF, unknown TIFF tags) that does not matter to pixels.
``warnings.catch_warnings`` is not thread-safe, so one filter entry, which matches only in threads
that are inside of ``quiet``, stays at the head of ``warnings.filters``. (The TIFF library's own
remarks on damaged files go straight to stderr and cannot be held back from here.)
"""

import threading
import warnings
from types import TracebackType


class Quiet:
    """Silences warnings in the threads that are inside the ``with`` block, and only there.

    An instance is also the message pattern of its own filter entry: the interpreter calls
    ``match`` of the head filters for each warning and applies the first one that says yes.
    """

    def __init__(self) -> None:
        self._inside = threading.local()
        self._lock = threading.Lock()
        self._entry = ("ignore", self, Warning, None, 0)

    def match(self, _message: str) -> bool:
        """Say yes inside of the ``with`` block."""
        return getattr(self._inside, "depth", 0) > 0

    def __enter__(self) -> None:
        # Others add filters too, and catch_warnings puts back whole lists: see that ours leads.
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
"""The one of this process; use it in a ``with``."""
