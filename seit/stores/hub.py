"""Upload of a store and its dataset card to the Hugging Face hub, by `seit convert STORE hf://…`.

A repository of kind *dataset* gets every file of the store, and a `README.md`. Files go up in
commits of bounded size, the card of the store in the last of them, so only a complete repository is
a store. A repeated call skips the files that are there. The token is huggingface_hub's own: from
the environment (HF_TOKEN) or its login.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seit.errors import ChangedError, DamagedError, SeitError, UsageError
from seit.files import sha256_of
from seit.numbers import counted
from seit.progress import Count
from seit.shards import CARD_NAME, FileRecord, Store
from seit.stores.card import CARD_PAGE_NAME, write_dataset_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB_SCHEME = "hf://"
_PLACE = re.compile(r"hf://(?:datasets/)?([\w.-]{1,96}/[\w.-]{1,96})/?", re.ASCII)
_REPO_TYPE = "dataset"
_COMMIT_FILES = 50
_COMMIT_BYTES = 4 << 30
"""Most files and bytes of a commit: what an interrupted upload may have to send again."""
_SMALL_BYTES = 1 << 26
"""Largest file that a repository keeps as part of its commits."""
_OWN = {".gitattributes", CARD_PAGE_NAME}
"""Files of a repository that are no part of a store and no obstacle."""
_REASONS = {
    401: "the hub does not know the token; set HF_TOKEN, or log in with `hf auth login`",
    403: "the token may not write there; take one with write access to this name",
    404: "there is no such user or organization, or the token may not see it; check the name",
    409: "somebody else changes it at this moment; run the same command again",
    412: "somebody else has changed it meanwhile; run the same command again",
    413: "the hub refuses a file of this size; tokenize with a smaller --shard-samples",
    429: "the hub asks to slow down; run the same command again later, it resumes",
}


class _Remote(NamedTuple):
    """File of a repository: its size, git's hash, and sha256 if it is a large file."""

    size: int
    blob: str
    sha256: str | None


def is_hub(target: object) -> bool:
    """Return whether a place to write is a repository of the hub."""
    return isinstance(target, str) and target.startswith(HUB_SCHEME)


def hub_name(target: str) -> str:
    """Return ``owner/name`` of ``hf://owner/name`` or ``hf://datasets/owner/name``.

    Raises:
        UsageError: it is neither.
    """
    match = _PLACE.fullmatch(target)
    if match is None:
        raise UsageError(
            f"{target} is no repository of the hub; expected hf://OWNER/NAME, a dataset of yours"
        )
    return match[1]


def upload_store(
    store: Store,
    folder: Path,
    target: str,
    *,
    license_id: str = "",
    private: bool = False,
    progress: Count | None = None,
) -> None:
    """Upload a store with its dataset card, or resume an interrupted upload.

    Args:
        store: the opened store.
        folder: its local folder.
        target: ``hf://owner/name``; the repository is created if necessary.
        license_id: license on the card, such as ``cc0-1.0``; the card asks for one without it.
        private: whether a new repository is private.
        progress: callback that receives (files done, total files).

    Raises:
        UsageError: the token is missing or may not write, the name is invalid, or the repository
            holds another store or other files.
        DamagedError: a file of the store does not match its card.
        ChangedError: somebody else changed the repository meanwhile.
        SeitError: the hub cannot be reached, or refuses a file.
    """
    from huggingface_hub import HfApi

    repo = hub_name(target)
    place = f"{HUB_SCHEME}datasets/{repo}"
    page = write_dataset_card(
        store, name=repo.partition("/")[2], place=place, license_id=license_id
    ).encode()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _explained(place):
        api.create_repo(repo, repo_type=_REPO_TYPE, private=private or None, exist_ok=True)
        parent, remote = _listing(api, repo)
    card_text = store.card.to_text().encode()
    _check_remote(place, remote, store, card_text)
    records = store.card.records
    left = [record for record in records if not _is_there(folder, record, remote)]
    done = len(records) - len(left)
    total = len(records) + 1
    for part in _parts(left):
        for record in part:
            _check_file(folder, record)
        files: Mapping[str, Any] = {record.file: folder / record.file for record in part}
        with _explained(place):
            parent = _commit(
                api, repo, files, parent, f"Add {counted(len(part), 'file')} of a seit store"
            )
        done += len(part)
        if progress is not None:
            progress(done, total)
    last = {CARD_NAME: card_text}
    if CARD_PAGE_NAME not in remote:
        last[CARD_PAGE_NAME] = page
    if CARD_NAME not in remote or CARD_PAGE_NAME in last:
        with _explained(place):
            _commit(api, repo, last, parent, "Complete a seit store")
    if progress is not None:
        progress(total, total)


def _listing(api: "HfApi", repo: str) -> tuple[str | None, dict[str, _Remote]]:
    """Return the latest commit of a repository, and its files by path."""
    from huggingface_hub.hf_api import RepoFile

    head = api.repo_info(repo, repo_type=_REPO_TYPE).sha
    found = {}
    for entry in api.list_repo_tree(repo, repo_type=_REPO_TYPE, recursive=True, revision=head):
        if isinstance(entry, RepoFile):
            sha256 = entry.lfs.sha256 if entry.lfs is not None else None
            found[entry.path] = _Remote(entry.size, entry.blob_id, sha256)
    return head, found


def _check_remote(
    place: str, remote: Mapping[str, _Remote], store: Store, card_text: bytes
) -> None:
    """Check that a repository is empty, or holds a part of this store.

    Raises:
        UsageError: it holds something else.
    """
    card = remote.get(CARD_NAME)
    if card is not None and not _is_same(card, card_text):
        raise UsageError(f"{place} holds another store; choose another name, or delete it there")
    own = {record.file for record in store.card.records} | {CARD_NAME} | _OWN
    foreign = sorted(set(remote) - own)
    if foreign and card is None:
        raise UsageError(
            f"{place} holds other files, such as {foreign[0][:80]!r}; choose a new name"
        )


def _is_same(remote: _Remote, data: bytes) -> bool:
    if remote.sha256 is not None:
        return remote.sha256 == hashlib.sha256(data).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return remote.blob == blob.hexdigest()


def _is_there(folder: Path, record: FileRecord, remote: Mapping[str, _Remote]) -> bool:
    """Return whether a file has been uploaded."""
    found = remote.get(record.file)
    if found is None or found.size != record.bytes:
        return False
    if found.sha256 is not None:
        return found.sha256 == record.sha256
    path = folder / record.file
    return record.bytes <= _SMALL_BYTES and path.is_file() and _is_same(found, path.read_bytes())


def _parts(records: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Divide files into those of each commit."""
    part: list[FileRecord] = []
    size = 0
    for record in records:
        if part and (len(part) == _COMMIT_FILES or size + record.bytes > _COMMIT_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += record.bytes
    if part:
        yield part


def _check_file(folder: Path, record: FileRecord) -> None:
    path = folder / record.file
    try:
        is_right = sha256_of(path) == record.sha256
    except OSError:
        is_right = False
    if not is_right:
        raise DamagedError(f"{path} does not match the card; `seit verify` says more")


def _commit(
    api: "HfApi", repo: str, files: Mapping[str, Any], parent: str | None, message: str
) -> str | None:
    """Commit files, given as paths or bytes, on top of ``parent``; return the new commit."""
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    made = api.create_commit(
        repo, operations, commit_message=message, repo_type=_REPO_TYPE, parent_commit=parent
    )
    return made.oid


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's progress bars off the terminal."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turn errors of the hub into one line.

    Raises:
        UsageError: the hub refuses the token or the name.
        ChangedError: the repository was changed meanwhile.
        SeitError: anything else.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        with _quiet():
            yield
    except LocalTokenNotFoundError:
        raise UsageError(f"{place} cannot be written: {_REASONS[401]}") from None
    except Exception as error:
        # The library of HTTP requests, and so its errors, differs between versions of the hub's.
        if not isinstance(error, (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)):
            raise
        code = _status_of(error)
        if code in (409, 412):
            raise ChangedError(f"{place} cannot be written: {_REASONS[code]}") from error
        if code in _REASONS:
            kind = UsageError if code in (401, 403, 404) else SeitError
            raise kind(f"{place} cannot be written: {_REASONS[code]}") from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        what = f"HTTP status {code}" if code is not None else lines[0][:200]
        raise SeitError(
            f"{place} cannot be written: {what}; run the same command again, it resumes"
        ) from error


def _status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error, or one of its causes, is about."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None
