"""The folder of a job that is under way: ``STORE/.tokenize``, removed once the card is written.

It holds ``job.json`` (what the job is), ``tokenizer.safetensors`` and a record of each finished
shard, which is all that a killed job needs to go on.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seit.errors import SeitError, UsageError
from seit.files import explained_writes, write_atomically
from seit.shards import CARD_NAME, TOKENIZER_NAME, ShardRecord
from seit.tokenize.plan import ShardPlan

WORKSPACE_NAME = ".tokenize"


@dataclass(frozen=True)
class DoneShard:
    """What a finished shard leaves behind; ``shard`` is None when none of its inputs was good.

    Attributes:
        shard: the card's entry.
        skipped: (key, reason) of each unreadable input.
        label_counts: label → samples.
        source_bytes: bytes of the inputs that became samples.
    """

    shard: ShardRecord | None
    skipped: tuple[tuple[str, str], ...]
    label_counts: Mapping[int, int]
    source_bytes: int


class Workspace:
    """The job's folder inside the store's."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = store / WORKSPACE_NAME
        self._done = self.path / "done"

    @property
    def tokenizer_path(self) -> Path:
        """Where the job keeps its tokenizer, codebook included."""
        return self.path / TOKENIZER_NAME

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store against a second job.

        Raises:
            SeitError: another job is writing it.
        """
        with explained_writes(self.path):
            self._done.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SeitError(
                    f"another job is writing {self.store}; wait for it or stop it first"
                ) from error
            yield
        finally:
            os.close(lock)

    def read_job(self) -> dict[str, Any] | None:
        """The description of the job that left this folder, if it got that far."""
        try:
            job = json.loads((self.path / "job.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise SeitError(
                f"{self.path}/job.json is damaged; remove {self.store} and start again"
            ) from error
        return dict(job)

    def write_job(self, job: Mapping[str, Any]) -> None:
        """Note what the job is; from here on it can be resumed."""
        write_atomically(self.path / "job.json", json.dumps(job, indent=2).encode())

    def read_done(self, plan: ShardPlan) -> DoneShard | None:
        """The record of a shard that is finished and still in place, or None."""
        try:
            entry = json.loads((self._done / f"{plan.name}.json").read_bytes())
            shard = ShardRecord(**entry["shard"]) if entry["shard"] else None
            if shard and (self.store / shard.file).stat().st_size != shard.bytes:
                return None
            return DoneShard(
                shard=shard,
                skipped=tuple((key, reason) for key, reason in entry["skipped"]),
                label_counts={int(label): n for label, n in entry["label_counts"].items()},
                source_bytes=int(entry["source_bytes"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_done(self, plan: ShardPlan, done: DoneShard) -> None:
        """Note that a shard is finished."""
        write_atomically(self._done / f"{plan.name}.json", json.dumps(asdict(done)).encode())

    def remove(self) -> None:
        """Remove the folder: the job is over."""
        shutil.rmtree(self.path, ignore_errors=True)


def check_target(store: Path, *, overwrite: bool) -> None:
    """Refuse a STORE path that holds something else; with ``overwrite`` remove an old store.

    Raises:
        UsageError: the path is a file, or a folder with other things in it.
    """
    if store.exists() and not store.is_dir():
        raise UsageError(f"{store} is a file; STORE must be a new folder or a store")
    if not store.is_dir() or not any(store.iterdir()):
        return
    ours = (store / CARD_NAME).is_file() or (store / WORKSPACE_NAME).is_dir()
    if not ours:
        raise UsageError(
            f"{store} already holds something that is not a store; choose a new or empty folder"
        )
    if overwrite:
        shutil.rmtree(store)
