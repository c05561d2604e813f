"""Setup of makers of shards, here and in actors.

Actors write to the store's folder, so all nodes must share its file system. An actor writes in a
folder of its own and renames complete files, so two actors may make the same shard, as when a node
seemed lost.
"""

import json
import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import override

from seit.devices import choose_device
from seit.errors import SeitError
from seit.files import explained_writes, publish, write_atomically
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import Encoder
from seit.ingest.engines.base import Work
from seit.ingest.engines.encoders import encoder_of_actor
from seit.ingest.fit import make_reader
from seit.ingest.plan import ShardPlan
from seit.ingest.resolve import with_own_backbone
from seit.ingest.shard import ShardMaker
from seit.ingest.workspace import DoneShard, Workspace
from seit.tokenizers import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class ShardPlant:
    """Setup of makers of the shards of a job; see :class:`~seit.ingest.engines.base.Plant`."""

    workspace: Workspace

    def here(self, work: Work[ShardPlan, DoneShard], encoder: Encoder) -> ShardMaker:
        """Return a maker of this process."""
        return ShardMaker(
            work.tokenizer,
            encoder,
            work.reader,
            self.workspace,
            strict=work.config.strict,
            advance=work.advance,
        )

    def load_tokenizer(self, config: TokenizeConfig) -> Tokenizer:
        """Load the tokenizer of a running job, on the CPU."""
        return with_own_backbone(load_tokenizer(self._joined().tokenizer_path), config)

    def join(
        self, config: TokenizeConfig, encoders: Sequence[Any], stack: ExitStack
    ) -> "_ActorMaker":
        """Return a maker of a running job, in an actor."""
        tokenizer = self.load_tokenizer(config).to(choose_device(config.device))
        workers = max(config.ray_cpus, 1)
        return _ActorMaker(
            ShardMaker(
                tokenizer,
                encoder_of_actor(tokenizer, config, encoders, stack),
                stack.enter_context(make_reader(replace(config, workers=workers))),
                self._joined(),
                strict=config.strict,
                advance=_ignore,
            )
        )

    def _joined(self) -> "ActorWorkspace":
        return ActorWorkspace(self.workspace.store.absolute(), staged=self.workspace.staged)

    def to_json(self, record: DoneShard) -> bytes:
        """Return a record as JSON."""
        return record.to_json()

    def from_json(self, data: bytes) -> DoneShard:
        """Read the output of :meth:`to_json`."""
        return DoneShard.from_json(data)

    def counts(self, task: ShardPlan, record: DoneShard) -> tuple[int, int]:
        """Return how many inputs a shard has, and how many were skipped."""
        return task.num_inputs, len(record.skipped)


@dataclass(frozen=True)
class _ActorMaker:
    """Maker in an actor, which may have been restarted after it finished a shard."""

    maker: ShardMaker

    def make(self, plan: ShardPlan) -> DoneShard:
        """Make a shard, unless it is finished."""
        return self.maker.workspace.read_done(plan) or self.maker.make(plan)


class ActorWorkspace(Workspace):
    """Job folder as seen by an actor; only complete shards appear in the store."""

    def __init__(self, store: Path, *, staged: bool) -> None:
        """Join a running job.

        Raises:
            SeitError: the folder does not exist.
        """
        super().__init__(store, staged=staged)
        self._final = self.shards
        if not self.tokenizer_path.is_file():
            raise SeitError(
                f"node {os.uname().nodename} does not see {self.tokenizer_path}; STORE must be on "
                "a file system that all nodes of the cluster share"
            )
        self._of_job = self._job_bytes()
        self._own = self.path / "actors" / f"{os.getpid()}-{uuid.uuid4().hex}"
        with explained_writes(self._own):
            self._own.mkdir(parents=True)

    @override
    def read_done(self, plan: ShardPlan) -> DoneShard | None:
        self.shards = self._final
        try:
            return super().read_done(plan)
        finally:
            self.shards = self._own

    @override
    def write_done(self, plan: ShardPlan, done: DoneShard) -> None:
        if self._job_bytes() != self._of_job:
            raise SeitError(f"{self.store} belongs to another job now")
        record = self._own / f"{plan.name}.json"
        target = self._done / record.name
        with explained_writes(target):
            if done.shard:
                file = self._final / done.shard.file
                file.parent.mkdir(parents=True, exist_ok=True)
                publish(self._own / done.shard.file, file)
            write_atomically(record, json.dumps(asdict(done)).encode())
            publish(record, target)

    def _job_bytes(self) -> bytes:
        try:
            return self._job.read_bytes()
        except OSError:
            return b""


def _ignore(_inputs: int, _skipped: int) -> None:
    """Ignore progress within a shard; it is reported per shard."""
