"""Cache of read ranges on the local disk, shared by all threads and processes of a user.

Each range is a file of its bytes and their checksum, named after the URL, the store's seal and the
range, so that a store that replaces another never finds its ranges. Files are created by a rename
and may vanish at any time; a reader that misses one asks the remote folder. A lock file keeps the
total size below the limit; the least recently used files are removed first.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c

from seit.config import build, from_environment
from seit.errors import UsageError
from seit.locks import wait_for_lock
from seit.shards.folders.base import Folder, WrappedFolder
from seit.shards.folders.remote import RemoteFolder

_CHECKSUM_BYTES = 4
_NUMBER_BYTES = 8
_LOCK_SECONDS = 2.0
_NAME = re.compile(r"\.?[0-9a-f]{62}")
_KEYS_VERSION = 2
"""Version 1 may have cached reads that raced with the replacement of a store."""
_KEPT_SHARE = 0.875
"""Share of the limit that eviction leaves, so that not every write has to evict."""


@dataclass(frozen=True)
class CacheConfig:
    """Cache of remote stores; ``SEIT_CACHE_DIR`` and ``SEIT_CACHE_BYTES`` also set it.

    Attributes:
        dir: its folder; empty for the user's cache folder.
        bytes: most bytes in use; 0 for no cache.
    """

    dir: str = ""
    bytes: int = 10_000_000_000


@dataclass(frozen=True)
class StoreSettings:
    """Settings of opened stores, which variables alone give."""

    cache: CacheConfig = field(default_factory=CacheConfig)


def with_cache(
    folder: Folder,
    *,
    identity: str,
    cache_dir: str | Path | None = None,
    cache_bytes: int | None = None,
) -> Folder:
    """Wrap a remote ``folder`` in a cache; omitted settings come from the environment.

    Raises:
        UsageError: the limit is negative, or an environment variable is invalid.
    """
    if not isinstance(folder.place, RemoteFolder):
        return folder
    given = build(StoreSettings, from_environment(StoreSettings), origin="environment").cache
    limit = given.bytes if cache_bytes is None else cache_bytes
    if limit < 0:
        raise UsageError(f"the cache size is {limit} bytes; expected 0 (no cache) or more")
    directory = cache_dir or given.dir or _default_directory()
    if not limit:
        return folder
    return CachedFolder(folder, Path(directory), max_bytes=limit, identity=identity)


class CachedFolder(WrappedFolder):
    """``folder``, with read ranges cached in ``directory``, at most ``max_bytes``.

    Only reads of a given size are cached. ``identity`` names the content of the folder: another
    one does not find ranges cached under the first. If the cache cannot be written, it is disabled
    with one warning, and reads continue without it.
    """

    def __init__(self, folder: Folder, directory: Path, *, max_bytes: int, identity: str) -> None:
        super().__init__(folder)
        self._space = _CacheSpace(directory, max_bytes)
        place = folder.place
        url = place.url if isinstance(place, RemoteFolder) else str(place)
        self._identity = hashlib.sha256(f"{_KEYS_VERSION}\0{url}\0{identity}".encode()).hexdigest()

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read a range, from the cache if it is there."""
        if size is None:
            return self.folder.read(name, offset)
        key = self._key(name, offset, size)
        data = self._space.get(key, size)
        if data is None:
            data = self.folder.read(name, offset, size)
            if len(data) == size:
                self._space.put(key, data)
        return data

    def reread(self, name: str, offset: int, size: int) -> bytes | None:
        """Read a range again from the remote folder, and cache the result."""
        key = self._key(name, offset, size)
        self._space.forget(key)
        data = self.folder.read(name, offset, size)
        if len(data) == size:
            self._space.put(key, data)
        return data

    def _key(self, name: str, offset: int, size: int) -> str:
        return hashlib.sha256(f"{self._identity}\0{name}\0{offset}\0{size}".encode()).hexdigest()


class _CacheSpace:
    """Files of at most ``max_bytes`` in total under a folder that many processes share."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._given_up = False

    def get(self, key: str, size: int) -> bytes | None:
        """Return the ``size`` bytes cached under ``key``, or None."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                kept = file.read(size + _CHECKSUM_BYTES + 1)
            os.utime(path)
        except OSError:
            return None
        if len(kept) == size + _CHECKSUM_BYTES and _checksum(key, kept[:size]) == kept[size:]:
            return kept[:size]
        self.forget(key)
        return None

    def put(self, key: str, data: bytes) -> None:
        """Cache ``data``; it may be evicted at any time, even at once."""
        num_bytes = len(data) + _CHECKSUM_BYTES
        if self._given_up or num_bytes > self._max_bytes:
            return
        try:
            path = self._path(key)
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True)
            with self._locked() as lock:
                if lock is None or path.exists():
                    return
                self._make_room(lock, num_bytes)
                _write(path, data + _checksum(key, data))
        except OSError as error:
            self._given_up = True
            warnings.warn(
                f"the cache {self._directory} cannot be written ({error.strerror or error}); "
                "blocks are fetched again each time",
                RuntimeWarning,
                stacklevel=2,
            )

    def forget(self, key: str) -> None:
        """Remove the bytes cached under ``key``."""
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key[2:]

    @contextmanager
    def _locked(self) -> Iterator[int | None]:
        """Hold the lock of the folder: yields its file, or None if others hold it for long."""
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock if wait_for_lock(lock, seconds=_LOCK_SECONDS) else None
        finally:
            os.close(lock)

    def _make_room(self, lock: int, num_bytes: int) -> None:
        """Evict the oldest files to make room for ``num_bytes`` more, and count these as used.

        The lock file holds the count. It is never too low: bytes are counted before they are
        written, and removals only when all files are counted again.
        """
        counted = os.pread(lock, _NUMBER_BYTES, 0)
        known = len(counted) == _NUMBER_BYTES
        used = int.from_bytes(counted, "little") + num_bytes
        if not known or used > self._max_bytes:
            used = self._evict(num_bytes) + num_bytes
        os.pwrite(lock, used.to_bytes(_NUMBER_BYTES, "little"), 0)

    def _evict(self, num_bytes: int) -> int:
        """Remove the least recently used files; returns the bytes of the remaining ones."""
        entries = []
        for path in self._directory.glob("[0-9a-f][0-9a-f]/*"):
            if not _NAME.fullmatch(path.name):  # not a file of this cache
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        used = sum(size for _, size, _ in entries)
        allowed = min(self._max_bytes - num_bytes, int(self._max_bytes * _KEPT_SHARE))
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if used <= allowed:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _checksum(key: str, data: bytes) -> bytes:
    checksum = google_crc32c.extend(google_crc32c.value(key.encode()), data)
    return int(checksum).to_bytes(_CHECKSUM_BYTES, "little")


def _default_directory(environment: Mapping[str, str] = os.environ) -> Path:
    root = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "seit"
