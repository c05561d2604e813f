"""Byte ranges of files behind URLs, with the retries of :class:`RemoteFolder`.

A permanent network failure stops a job (``SeitError``), since it says nothing about the file; a
rerun resumes. A file that is missing or forbidden is an ``OSError``.
"""

from functools import lru_cache
from typing import NamedTuple

from seit.shards import RemoteFolder, is_url

_WINDOW_BYTES = 2 << 20
"""Size of a header request: its transfer takes about as long as its latency."""
_MAX_PLACES = 64

__all__ = ["RemoteFile", "RemotePlace", "is_url", "read_remote", "remote_size", "split_url"]


class RemotePlace(NamedTuple):
    """URL in two parts: the bucket or host, and the name within it."""

    base: str
    name: str


def split_url(url: str) -> RemotePlace:
    """Split a URL after its bucket or host."""
    scheme, separator, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return RemotePlace(f"{scheme}{separator}{bucket}", name)


def read_remote(url: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset``; fewer only at the end of the file.

    Raises:
        OSError: the file does not exist, or reading is not permitted.
        SeitError: the remote server does not respond, in spite of retries.
    """
    place = split_url(url)
    return _folder(place.base).read(place.name, offset, size)


def remote_size(url: str) -> int:
    """Return the size of a file in bytes; raises as :func:`read_remote` does."""
    place = split_url(url)
    return _folder(place.base).size(place.name)


class RemoteFile:
    """File read from start to end, perhaps with gaps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.num_bytes = remote_size(url)
        self._start = 0
        self._window = b""

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset``; fewer only at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._window):
            self._start, begin = offset, 0
            wanted = min(max(size, _WINDOW_BYTES), self.num_bytes - offset)
            self._window = read_remote(self._url, offset, wanted) if wanted > 0 else b""
        return self._window[begin : begin + size]

    def close(self) -> None:
        """Discard buffered data."""
        self._window = b""


@lru_cache(maxsize=_MAX_PLACES)
def _folder(base: str) -> RemoteFolder:
    return RemoteFolder(base)
