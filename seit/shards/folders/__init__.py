"""Folders: the places that hold a store's files, on a disk or behind a URL."""

from seit.shards.folders.base import Folder, Stamp, WrappedFolder
from seit.shards.folders.cache import CacheConfig, CachedFolder, with_cache
from seit.shards.folders.local import LocalFolder
from seit.shards.folders.places import Location, is_url, open_folder
from seit.shards.folders.remote import RemoteFolder
from seit.shards.folders.retries import RetryPolicy

__all__ = [
    "CacheConfig",
    "CachedFolder",
    "Folder",
    "LocalFolder",
    "Location",
    "RemoteFolder",
    "RetryPolicy",
    "Stamp",
    "WrappedFolder",
    "is_url",
    "open_folder",
    "with_cache",
]
