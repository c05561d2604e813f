"""Folder of a job in progress: ``STORE/.tokenize``, removed after the card is written.

``job.json`` (the description of the job), ``tokenizer.safetensors`` and a record of each finished
shard are all that a killed job needs to resume. ``packed/`` holds shards that are recoded once all
are there; ``replacing`` exists while the previous contents of STORE are being removed.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from seit.documents import parse_json, read_plain
from seit.errors import UsageError
from seit.files import explained_writes, inside, write_atomically
from seit.ingest.plan import ShardPlan
from seit.locks import LOCK_NAME, is_same_file, refuse_links, take_lock
from seit.shards import CARD_NAME, TOKENIZER_NAME, ShardRecord, is_url
from seit.store_folders import JOB_FOLDER, is_card, refuse_inside_store
from seit.stores import check_not_replaced
from seit.tokenizers import Tokenizer, save_tokenizer

MAX_JOB_BYTES = 1 << 28
"""Size limit of the description of a job, or of a finished shard with its list of skipped inputs.
"""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # Path turns "s3://x" into "s3:/x"


@dataclass(frozen=True)
class DoneShard:
    """Record of a finished shard; ``shard`` is None if none of its inputs was readable.

    Attributes:
        shard: entry of the card.
        skipped: (key, reason) of each unreadable input.
        label_counts: label → samples.
        source_bytes: bytes of the inputs that became samples.
        remarks: remark on what was dropped or assumed → number of inputs, and key of the first.
    """

    shard: ShardRecord | None
    skipped: tuple[tuple[str, str], ...]
    label_counts: Mapping[int, int]
    source_bytes: int
    remarks: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read the output of :meth:`to_json`.

        Raises:
            ValueError: the data is something else.
        """
        return msgspec.convert(parse_json(data), cls, strict=False)

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self)).encode()


class Workspace:
    """Folder of a job inside its store.

    ``staged`` jobs make a packed store in it first, and recode that once it is complete.
    """

    def __init__(self, store: Path, *, staged: bool) -> None:
        self.store = store
        self.path = store / JOB_FOLDER
        self.staged = staged
        self.shards = self.path / "packed" if staged else store
        """Folder in which shards are made."""
        self._done = self.path / "done"
        self._job = self.path / "job.json"
        self._replacing = self.path / "replacing"

    @property
    def tokenizer_path(self) -> Path:
        """Path of the job's tokenizer, including its codebook."""
        return self.path / TOKENIZER_NAME

    @property
    def is_replacing(self) -> bool:
        """True while the previous contents of STORE are being removed, also after a kill."""
        return self._replacing.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the store against a second job; a job that never began leaves no trace.

        Raises:
            SeitError: another job is writing it, or its folder cannot be created or locked.
            UsageError: its folder is a link.
        """
        refuse_links(self.path, self._done)
        is_new = not self.store.exists()
        lock = take_lock(self.path / LOCK_NAME, busy=f"another job is writing {self.store}")
        try:
            check_not_replaced(self.store.resolve())
            with explained_writes(self.path):
                self._done.mkdir(exist_ok=True)
            yield
        finally:
            is_ours = is_same_file(lock, self.path / LOCK_NAME)
            if is_ours and not self._job.exists() and not self.is_replacing:
                self.remove()
                if is_new:
                    with suppress(OSError):
                        self.store.rmdir()
            os.close(lock)

    def read_job(self) -> dict[str, Any] | None:
        """Return the job described in this folder: None if it never began, {} if damaged."""
        if self.is_replacing:
            return None
        try:
            return dict(parse_json(read_plain(self._job, max_bytes=MAX_JOB_BYTES)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return {}

    def begin(self, job: Mapping[str, Any], tokenizer: Tokenizer, *, replace: bool) -> None:
        """Record the description of the job, which can be resumed from here on.

        ``replace`` first removes everything in the store's folder, starting with the card, so that
        a kill leaves either a whole store or no store.
        """
        if replace:
            write_atomically(self._replacing, b"")
            with explained_writes(self.store):
                (self.store / CARD_NAME).unlink(missing_ok=True)
                _remove_all(self.store, but={JOB_FOLDER})
                _remove_all(self.path, but={LOCK_NAME, self._replacing.name})
                self._done.mkdir()
                self._replacing.unlink()
        save_tokenizer(tokenizer, self.tokenizer_path)
        write_atomically(self._job, json.dumps(job, indent=2).encode())

    def read_done(self, plan: ShardPlan) -> DoneShard | None:
        """Return the record of a finished shard that is still in place, or None."""
        try:
            path = self._done / f"{plan.name}.json"
            done = DoneShard.from_json(read_plain(path, max_bytes=MAX_JOB_BYTES))
            shard = done.shard
            if shard and (self.shards / shard.file).stat().st_size != shard.bytes:
                return None
            return done
        except (OSError, ValueError):
            return None

    def write_done(self, plan: ShardPlan, done: DoneShard) -> None:
        """Record a shard as finished."""
        write_atomically(inside(self._done, f"{plan.name}.json"), done.to_json())

    def remove(self) -> None:
        """Remove the folder at the end of the job."""
        shutil.rmtree(self.path, ignore_errors=True)

    def abandon(self) -> None:
        """Discard a failed job; its folder is removed with the lock."""
        self._job.unlink()


def check_target(store: Path, source: str | Path) -> None:
    """Check that a STORE path can become a store, without changing anything.

    Raises:
        UsageError: it lies inside SRC or around it or inside a store, is a file or URL, or has
            other contents.
    """
    if _URL.match(str(store)):
        raise UsageError(f"{store} is a remote address as a path; pass it as text, not as a Path")
    try:
        _check_apart(store, source)
        refuse_inside_store(store)
        if store.is_symlink() and not store.exists():
            raise UsageError(f"{store} is a link that leads nowhere; STORE must be a folder")
        if store.exists() and not store.is_dir():
            raise UsageError(f"{store} is a file; STORE must be a new folder or a store")
        if not store.is_dir() or not any(store.iterdir()):
            return
        if not (store / JOB_FOLDER).is_dir() and not is_card(store / CARD_NAME):
            raise UsageError(
                f"{store} already holds something that is not a store; choose a new or empty folder"
            )
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "a loop of symbolic links"
        raise UsageError(f"{store} cannot be used ({reason}); choose another STORE") from error


def _check_apart(store: Path, source: str | Path) -> None:
    if is_url(str(source)):
        return
    inner, outer = store.resolve(), Path(source).resolve()
    if inner == outer or outer in inner.parents:
        raise UsageError(f"STORE {store} lies inside SRC {source}; choose a folder outside it")
    if inner in outer.parents:
        raise UsageError(f"SRC {source} lies inside STORE {store}; choose a new or empty folder")


def _remove_all(folder: Path, *, but: Set[str]) -> None:
    for path in folder.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
