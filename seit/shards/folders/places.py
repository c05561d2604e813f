"""Resolution of a location, as written by a user, to its folder."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from seit.shards.folders.base import Folder
from seit.shards.folders.local import LocalFolder
from seit.shards.folders.remote import RemoteFolder
from seit.shards.folders.retries import RetryPolicy

Location: TypeAlias = str | Path | Folder
"""A path, a URL such as ``s3://bucket/corpus``, or an open folder."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")
_FILE_SCHEME = "file://"


def is_url(location: str) -> bool:
    """Return whether a location is a URL of any kind, not a path."""
    return _URL.match(location) is not None


def open_folder(
    location: Location,
    *,
    storage_options: Mapping[str, Any] | None = None,
    retry: RetryPolicy | None = None,
) -> Folder:
    """Open the folder at a path or a URL; it need not exist.

    Args:
        location: a path, or any URL that fsspec supports; a ``Path`` is always local.
        storage_options: arguments of fsspec's file system (endpoint, credentials, …).
        retry: limits of retries when a remote place does not answer.

    Raises:
        UsageError: the URL is of an unknown kind, or needs a package that is not installed.
    """
    if isinstance(location, Folder):
        return location
    if isinstance(location, Path) or not is_url(location):
        return LocalFolder(Path(location))
    if location.startswith(_FILE_SCHEME):
        return LocalFolder(Path(location.removeprefix(_FILE_SCHEME)))
    return RemoteFolder(location, storage_options=storage_options, retry=retry)
