"""Folder behind a URL: S3, GCS, Hugging Face, HTTP and any other that fsspec supports.

Every request has a time limit and is retried if it fails in transit
(:mod:`seit.shards.folders.retries`); a read that returns too few bytes counts as failed.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from seit.errors import DamagedError, SeitError, UsageError
from seit.extras import how_to_install
from seit.files import create_file, explained_writes, inside
from seit.shards.folders.base import PART_BYTES, Folder
from seit.shards.folders.local import LocalFolder
from seit.shards.folders.retries import (
    RetryPolicy,
    call_within,
    describe,
    hide_secrets,
    http_status,
)

_T = TypeVar("_T")
_SLOWEST_BYTES_PER_SECOND = 128 << 10
_S3_PROTOCOLS = ("s3", "s3a")
_READ_ONLY = ("http://", "https://")
_RANGE_NOT_SATISFIABLE = 416


class RemoteFolder(Folder):
    """Folder at ``url``. It can be pickled and used after a fork."""

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        base, mark, query = url.partition("?")
        self._base = base.rstrip("/")
        self._query = mark + query
        self._options = dict(storage_options or {})
        self._retry = retry or RetryPolicy()
        self._connection: tuple[int, Any, str] | None = None
        self._connect()

    def __str__(self) -> str:
        return hide_secrets(self._base)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    @property
    def url(self) -> str:
        """Complete URL, including any secrets in it."""
        return self._base + self._query

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return self._retry.call(lambda: self._size(name), what=f"reading {self.locate(name)}")

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read ``size`` bytes from ``offset``, or all; fewer only at the end of the file."""
        if size is None:
            size = max(0, self.size(name) - offset)
        what = f"reading {self.locate(name)}"
        parts = []
        for start in range(offset, offset + size, PART_BYTES):
            wanted = min(PART_BYTES, offset + size - start)
            part = self._retry.call(partial(self._read, name, start, wanted), what=what)
            parts.append(part)
            if len(part) < wanted:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def names(self) -> list[str]:
        """Return the names of all files, including those in subfolders, sorted."""
        filesystem, root = self._connect()
        filesystem.invalidate_cache()
        found = self._retry.call(
            lambda: self._request("find", root, seconds=self._retry.total_seconds),
            what=f"listing {self}",
        )
        prefix = root.rstrip("/") + "/"
        names = (path.removeprefix(prefix) for path in found)
        return sorted(name for name in names if name and not name.endswith("/"))

    def write(self, name: str, data: bytes) -> None:
        """Write a file by a single put."""
        self._write(name, len(data), "pipe_file", self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file by a conditional put, unless there is one of this name."""
        if self.exists(name):
            return False
        try:
            self._write(name, len(data), "pipe_file", self._path(name), data, mode="create")
        except (FileExistsError, SeitError):
            # A put whose answer was lost is refused when it is repeated.
            if self.exists(name):
                return self.read(name) == data
            raise
        return True

    def upload(self, name: str, source: Path, *, sha256: str) -> None:
        """Check a local file and put it."""
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise DamagedError(f"{source} does not match its checksum; it was not copied")
        self._write(name, source.stat().st_size, "put_file", str(source), self._path(name))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._retry.call(
            lambda: self._request("rm_file", self._path(name), seconds=self._seconds(0)),
            what=f"removing {self.locate(name)}",
        )

    @contextmanager
    def fetched(self, name: str) -> Iterator[LocalFolder]:
        """Provide a temporary folder with a copy of the file."""
        with tempfile.TemporaryDirectory(prefix="seit-") as folder:
            path = inside(Path(folder), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with create_file(path) as file:
                for part in self.parts(name):
                    with explained_writes(path):
                        file.write(part)
            yield LocalFolder(Path(folder), shown=str(self))

    def _connect(self) -> tuple[Any, str]:
        """Return the fsspec file system and the folder's path in it, newly created per process."""
        if self._connection is None or self._connection[0] != os.getpid():
            filesystem, root = _open_filesystem(self._base, self._options, self._retry)
            self._connection = os.getpid(), filesystem, root
        return self._connection[1:]

    def _path(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/"):
            raise UsageError(f"{name!r} is outside {self}; name a file in it")
        _, root = self._connect()
        return f"{root.rstrip('/')}/{name}{self._query}"

    def _seconds(self, num_bytes: int) -> float:
        return self._retry.attempt_seconds + num_bytes / _SLOWEST_BYTES_PER_SECOND

    def _request(self, method: str, *args: Any, seconds: float, **kwargs: Any) -> Any:
        """Call a method of the file system, for at most ``seconds``."""
        from fsspec.asyn import AsyncFileSystem, sync

        filesystem, _ = self._connect()
        if isinstance(filesystem, AsyncFileSystem):
            action = getattr(filesystem, f"_{method}")
            return sync(filesystem.loop, action, *args, timeout=seconds, **kwargs)
        return call_within(seconds, lambda: getattr(filesystem, method)(*args, **kwargs))

    def _size(self, name: str) -> int:
        filesystem, _ = self._connect()
        filesystem.invalidate_cache()  # other machines write here, too
        info = self._request("info", self._path(name), seconds=self._seconds(0))
        if info.get("type") == "directory":
            raise IsADirectoryError(name)
        if not isinstance(info.get("size"), int):
            raise SeitError(f"{self.locate(name)}: the server does not report the size of the file")
        return int(info["size"])

    def _read(self, name: str, offset: int, size: int) -> bytes:
        """Try to read a range once; returns fewer bytes only at the end of the file."""
        try:
            data: bytes = self._request(
                "cat_file",
                self._path(name),
                start=offset,
                end=offset + size,
                seconds=self._seconds(size),
            )
        except Exception as error:
            if http_status(error) != _RANGE_NOT_SATISFIABLE or self._size(name) > offset:
                raise
            return b""
        if len(data) == size:
            return data
        if len(data) > size:
            raise SeitError(
                f"{self.locate(name)}: {len(data)} bytes came instead of {size}; the server "
                "ignores ranges: copy the store and open the copy"
            )
        if len(data) != max(0, self._size(name) - offset):
            raise OSError(f"{len(data)} of {size} bytes came")
        return data

    def _write(self, name: str, num_bytes: int, method: str, *args: Any, **options: Any) -> None:
        what = f"writing {self.locate(name)}"
        if self._base.startswith(_READ_ONLY):
            raise UsageError(f"{self} can only be read; choose a place that can be written too")
        try:
            self._retry.call(
                lambda: self._request(method, *args, seconds=self._seconds(num_bytes), **options),
                what=what,
            )
        except OSError as error:
            raise UsageError(f"{error}; choose a place that you may write to") from None
        written = self.size(name)
        if written != num_bytes:
            raise SeitError(f"{what} left {written} of {num_bytes} bytes; run it again")


def _open_filesystem(url: str, options: Mapping[str, Any], retry: RetryPolicy) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    protocol = url.partition(":")[0]
    settings = dict(options)
    if protocol in _S3_PROTOCOLS:
        settings.setdefault("use_listings_cache", False)
        settings["config_kwargs"] = {
            "connect_timeout": retry.attempt_seconds,
            "read_timeout": retry.attempt_seconds,
            "retries": {"total_max_attempts": 1},
            **settings.get("config_kwargs", {}),
        }
    try:
        filesystem, root = url_to_fs(url, **settings)
    except ImportError as error:
        raise UsageError(
            f"{hide_secrets(url)} cannot be opened: {error}; {_how_to_install(protocol)}"
        ) from error
    except Exception as error:
        raise UsageError(f"{hide_secrets(url)} cannot be opened: {describe(error)}") from None
    if protocol in _S3_PROTOCOLS:
        filesystem.retries = 1  # its own retries would multiply ours
    return filesystem, root


def _how_to_install(protocol: str) -> str:
    if protocol in _S3_PROTOCOLS:
        return how_to_install("s3")
    return f"install the package that gives fsspec the protocol {protocol!r}"
