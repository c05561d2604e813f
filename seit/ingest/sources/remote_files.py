"""Bytes of files behind URLs, in ranges, with the retries of :class:`RemoteFolder`.

A network that fails for good stops a job (``SeitError``): it says nothing about the file, and the
job goes on when it is run again. A file that is not there, or may not be read, is an ``OSError``.
"""

from functools import lru_cache
from typing import NamedTuple

from seit.shards import RemoteFolder, is_url

_WINDOW_BYTES = 2 << 20
"""What a request for a header fetches: as long on its way as the request itself, about."""
_MAX_PLACES = 64

__all__ = ["RemoteFile", "RemotePlace", "is_url", "read_remote", "remote_size", "split_url"]


class RemotePlace(NamedTuple):
    """A URL in two parts: the bucket or host, and the name within it."""

    base: str
    name: str


def split_url(url: str) -> RemotePlace:
    """Cut a URL after its bucket or host."""
    scheme, separator, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return RemotePlace(f"{scheme}{separator}{bucket}", name)


def read_remote(url: str, offset: int, size: int) -> bytes:
    """Read ``size`` bytes from ``offset`` on; fewer only where the file ends.

    Raises:
        OSError: there is no such file, or it may not be read.
        SeitError: the place does not answer, in spite of retries.
    """
    place = split_url(url)
    return _folder(place.base).read(place.name, offset, size)


def remote_size(url: str) -> int:
    """Bytes of a file; raises as :func:`read_remote` does."""
    place = split_url(url)
    return _folder(place.base).size(place.name)


class RemoteFile:
    """A file that is read from its beginning to its end, perhaps with leaps."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.num_bytes = remote_size(url)
        self._start = 0
        self._window = b""

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset`` on; fewer only where the file ends."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._window):
            self._start, begin = offset, 0
            wanted = min(max(size, _WINDOW_BYTES), self.num_bytes - offset)
            self._window = read_remote(self._url, offset, wanted) if wanted > 0 else b""
        return self._window[begin : begin + size]

    def close(self) -> None:
        """Forget what was read."""
        self._window = b""


@lru_cache(maxsize=_MAX_PLACES)
def _folder(base: str) -> RemoteFolder:
    return RemoteFolder(base)
