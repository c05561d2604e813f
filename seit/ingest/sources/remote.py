"""List a corpus behind a URL: what :mod:`listing` does for paths, by the same rules.

Keys, splits, labels and sizes are those of the same files on a disk, and so is the store that a job
makes of them. Folders are listed in parallel, in requests that are tried again one by one.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from seit.errors import UsageError
from seit.ingest.sources.braces import expand, has_braces
from seit.ingest.sources.corpus import SPLIT_NAMES, Corpus, SourceFile, shown
from seit.ingest.sources.folder import list_tree
from seit.ingest.sources.manifest import list_manifest
from seit.ingest.sources.media import is_medium
from seit.ingest.sources.parquet import check_configurations, holds_media, list_parquet
from seit.ingest.sources.remote_files import split_url
from seit.ingest.sources.splits import HashSplit
from seit.ingest.sources.tables import TABLES, local_table
from seit.ingest.sources.tars import list_tar_files
from seit.ingest.sources.walk import Entry, Remarks, is_ignored
from seit.modality import Modality
from seit.shards import RemoteFolder

MAX_FILES = 100_000_000
"""More files than these are refused: their names alone take tens of gigabytes."""
_REQUESTS = 16
_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


class ListedFolder(RemoteFolder):
    """A remote folder that tells the sizes of all files below it."""

    def sizes(self) -> dict[str, int]:
        """Name → bytes of every visible file, sorted by name.

        Raises:
            UsageError: there are too many, or they may not be listed.
            SeitError: the place does not answer.
        """
        filesystem, _ = self._connect()
        filesystem.invalidate_cache()
        found, folders = self._entries("")
        for name in [name for name in folders if name.lower() in SPLIT_NAMES]:
            files, below = self._entries(name)  # the classes of a split are listed in parallel too
            found |= files
            folders = [*(folder for folder in folders if folder != name), *below]
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="list") as pool:
            for files in pool.map(self._below, folders):
                found |= files
                if len(found) > MAX_FILES:
                    raise UsageError(f"{self} holds more than {MAX_FILES:,} files; list a part")
        return {name: found[name] for name in sorted(found)}

    def _entries(self, folder: str) -> tuple[dict[str, int], list[str]]:
        """The files and the folders directly in ``folder``."""
        files: dict[str, int] = {}
        folders = []
        for entry in self._list("ls", folder):
            name = self._relative(entry["name"])
            if not name or is_ignored(name.rpartition("/")[2]) or name == folder:
                continue
            if entry["type"] == "directory":
                folders.append(name)
            else:
                files[name] = int(entry["size"])
        return files, folders

    def _below(self, folder: str) -> dict[str, int]:
        return {
            name: int(entry["size"])
            for entry in self._list("find", folder)
            for name in [self._relative(entry["name"])]
            if entry["type"] == "file" and not any(map(is_ignored, name.split("/")))
        }

    def _list(self, method: str, folder: str) -> list[dict[str, Any]]:
        path = self._path(folder).rstrip("/")
        try:
            found = self._retry.call(
                lambda: self._request(method, path, detail=True, seconds=self._retry.total_seconds),
                what=f"listing {self.locate(folder) if folder else self}",
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{error}; check the address and your credentials") from None
        entries = found.values() if isinstance(found, dict) else found
        return [entry for entry in entries if not entry["name"].endswith("/")]

    def _relative(self, path: str) -> str:
        _, root = self._connect()
        return path.removeprefix(root.rstrip("/")).strip("/")


def list_remote(
    url: str, *, hash_split: HashSplit, root: Path | None, modality: Modality
) -> Corpus:
    """List a folder, a table, a tar or a brace pattern of tars behind a URL.

    Raises:
        UsageError: nothing is there, or it is no corpus.
        DamagedError: a tar is truncated or corrupt.
        SeitError: the place does not answer.
    """
    name = split_url(url).name
    suffix = Path(name).suffix.lower()
    if root is not None and suffix not in TABLES:
        raise UsageError(f"{shown(url)} is no manifest; root is for tables of files only")
    if root is None and suffix == ".parquet" and (has_braces(url) or holds_media(url)):
        urls = expand(url)
        return _list_remote_parquets(url, urls, _common_folder(urls), hash_split, modality)
    if suffix in TABLES:
        return _list_remote_manifest(url, hash_split, root)
    if _COMPRESSED_TAR.search(name):
        raise UsageError(f"{shown(url)} is a compressed tar; decompress it to .tar first")
    if suffix == ".tar":
        urls = expand(url) if has_braces(url) else [url]
        return _list_remote_tars(url, urls, _common_folder(urls), hash_split, modality)
    return _list_remote_folder(url.rstrip("/"), hash_split, modality)


def _list_remote_folder(url: str, hash_split: HashSplit, modality: Modality) -> Corpus:
    sizes = ListedFolder(url).sizes()
    if not sizes:
        raise UsageError(f"{shown(url)} holds no files, or does not exist; check the address")
    if "store.json" in sizes:
        raise UsageError(f"{shown(url)} is a token store already; give the folder of its files")
    if not any(is_medium(name) for name in sizes):
        near = [name for name in sizes if _is_near(name)]
        compressed = next((name for name in near if _COMPRESSED_TAR.search(name)), None)
        if compressed:
            raise UsageError(
                f"{shown(f'{url}/{compressed}')} is a compressed tar; decompress it to .tar first"
            )
        tars = [f"{url}/{name}" for name in near if name.endswith(".tar")]
        if tars:
            return _list_remote_tars(url, tars, url, hash_split, modality)
        parquets = [f"{url}/{name}" for name in sizes if name.lower().endswith(".parquet")]
        if parquets:
            return _list_remote_parquets(url, parquets, url, hash_split, modality)
    return list_tree(url, url, _walk(sizes), Remarks(), hash_split=hash_split)


def _list_remote_parquets(
    source: str, urls: Sequence[str], base: str, hash_split: HashSplit, modality: Modality
) -> Corpus:
    files = [_source_file(url, base) for url in urls]
    check_configurations(source, files)
    return list_parquet(source, files, hash_split=hash_split, modality=modality)


def _source_file(url: str, base: str) -> SourceFile:
    return SourceFile(url, url.removeprefix(f"{base}/"), url.rsplit("/", 2)[-2])


def _is_near(name: str) -> bool:
    """Whether a file lies in the folder itself, or in one that is named like a split."""
    folder, _, base = name.rpartition("/")
    return bool(base) and (not folder or folder.lower() in SPLIT_NAMES)


def _list_remote_tars(
    source: str, urls: Sequence[str], base: str, hash_split: HashSplit, modality: Modality
) -> Corpus:
    doubles = len(urls) - len(set(urls))
    if doubles:
        raise UsageError(f"{shown(source)} names {doubles} files twice")
    files = [_source_file(url, base) for url in urls]
    return list_tar_files(
        source, files, hash_split=hash_split, modality=modality, requests=_REQUESTS
    )


def _list_remote_manifest(url: str, hash_split: HashSplit, root: Path | None) -> Corpus:
    folder = url.rpartition("/")[0]
    base = folder if root is None else str(root.absolute())
    with local_table(url) as copy:
        sizes = ListedFolder(folder).sizes() if root is None else None
        return list_manifest(copy, hash_split=hash_split, base=base, source=url, sizes=sizes)


def _common_folder(urls: Sequence[str]) -> str:
    """The deepest folder that holds all of the URLs."""
    folders = [url.split("/")[:-1] for url in urls]
    length = min(map(len, folders))
    while any(folder[:length] != folders[0][:length] for folder in folders):
        length -= 1
    return "/".join(folders[0][:length])


def _walk(sizes: dict[str, int]) -> Iterator[tuple[str, list[Entry]]]:
    """The folders of a listing and their entries, as :func:`walk` yields those of a disk."""
    folders: dict[str, list[Entry]] = {"": []}
    for name, num_bytes in sizes.items():
        *parents, base = name.split("/")
        path = ""
        for parent in parents:
            below = f"{path}{parent}/"
            if below not in folders:
                folders[below] = []
                folders[path].append(Entry(parent, True, False, -1))
            path = below
        folders[path].append(Entry(base, False, False, num_bytes))
    yield from folders.items()
