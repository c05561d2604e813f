"""Byte ranges of files behind URLs, with the retries of :class:`RemoteFolder`.

A permanent network failure stops a job (``SeitError``), since it says nothing about the file; a
rerun resumes. A file that is missing or forbidden is an ``OSError``.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

from seit.shards import RemoteFolder, is_url

_WINDOW_BYTES = 2 << 20
"""Size of a header request: its transfer takes about as long as its latency."""
STREAM_BYTES = 8 << 20
"""Size of the parts in which a file is streamed."""
_MAX_PLACES = 64

__all__ = [
    "RemoteFile",
    "RemotePlace",
    "StreamedFile",
    "is_url",
    "read_remote",
    "remote_size",
    "split_url",
]


class RemotePlace(NamedTuple):
    """URL in two parts: the bucket or host, and the name within it."""

    base: str
    name: str


def split_url(url: str) -> RemotePlace:
    """Split a URL after its bucket or host, and one of `file://` after its first folder."""
    scheme, separator, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    if not bucket:
        top, _, name = name.partition("/")
        bucket = f"/{top}"
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


class StreamedFile:
    """File read once from start to end, in parts of which one is requested ahead.

    Reads may go back by about a part; larger reads than a part are requests of their own.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.num_bytes = remote_size(url)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self._parts: dict[int, Future[bytes]] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset``; fewer only at the end of the file."""
        size = min(size, self.num_bytes - offset)
        if size <= 0:
            return b""
        if size > STREAM_BYTES:
            return read_remote(self._url, offset, size)
        first, last = offset // STREAM_BYTES, (offset + size - 1) // STREAM_BYTES
        found = b"".join(self._part(number) for number in range(first, last + 1))
        return found[offset - first * STREAM_BYTES :][:size]

    def _part(self, number: int) -> bytes:
        for wanted in (number, number + 1):
            if wanted not in self._parts and wanted * STREAM_BYTES < self.num_bytes:
                self._parts[wanted] = self._pool.submit(
                    read_remote, self._url, wanted * STREAM_BYTES, self._size(wanted)
                )
        for old in [held for held in self._parts if held < number - 1]:
            del self._parts[old]
        return self._parts[number].result()

    def _size(self, number: int) -> int:
        return min(STREAM_BYTES, self.num_bytes - number * STREAM_BYTES)

    def close(self) -> None:
        """Discard buffered data and wait for the request that is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._parts.clear()


@lru_cache(maxsize=_MAX_PLACES)
def _folder(base: str) -> RemoteFolder:
    return RemoteFolder(base)
