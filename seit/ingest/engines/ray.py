"""Cluster engine: Ray Data distributes shard plans over a pool of actors.

Each actor loads the tokenizer once, reads inputs itself and writes shards directly to the store's
folder, so all nodes must share the file system of STORE and be able to read SRC. Ray restarts dead
actors and repeats their plans; finished plans are on record. An actor writes in a folder of its own
and renames complete files, so two actors may make the same shard, as when a node seemed lost.
"""

import json
import logging
import os
import pickle
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from typing_extensions import override

import seit
from seit.devices import choose_device
from seit.errors import SeitError, UsageError
from seit.extras import how_to_install
from seit.files import explained_writes, publish, write_atomically
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import BatchEncoder
from seit.ingest.engines.base import Work
from seit.ingest.fit import make_reader
from seit.ingest.plan import ShardPlan
from seit.ingest.resolve import with_own_backbone
from seit.ingest.shard import ShardMaker
from seit.ingest.workspace import DoneShard, Workspace
from seit.tokenizers import load_tokenizer

_MAX_TASKS = 10_000
"""Maximum number of tasks, since Ray tracks each one; longer jobs put several shards in one task.
"""


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        UsageError: Ray is missing.
    """
    try:
        import_module("ray.data")
    except ImportError:
        raise UsageError(
            f"--engine ray needs Ray, which is not installed; {how_to_install('ray')}"
        ) from None


def make_on_ray(work: Work, plans: Sequence[ShardPlan]) -> Iterator[tuple[int, DoneShard]]:
    """Make shards in the actors of a running cluster, or of a temporary one.

    Raises:
        UsageError: the cluster cannot be reached or has no room for an actor.
        SeitError: an actor or Ray failed, or an input is unreadable and ``strict`` is set.
    """
    if not plans:
        return
    data, exceptions = import_module("ray.data"), import_module("ray.exceptions")
    config = work.config
    with _cluster(config) as wants_gpu, _quiet_context():
        actors = _count_actors(config, wants_gpu=wants_gpu)
        items = [
            {"number": number, "plan": zlib.compress(pickle.dumps(plan), 1)}
            for number, plan in enumerate(plans)
        ]
        records = data.from_items(items, override_num_blocks=min(len(items), _MAX_TASKS)).map(
            ShardActor,
            fn_constructor_kwargs={
                "config": replace(config, device="cuda" if wants_gpu else "cpu"),
                "store": str(work.workspace.store.absolute()),
                "staged": work.workspace.staged,
                "version": seit.__version__,
            },
            compute=data.ActorPoolStrategy(
                size=min(actors, len(items)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=config.ray_cpus,
            num_gpus=1 if wants_gpu else 0,
        )
        try:
            for row in records.iter_rows():
                if row["error"]:
                    raise SeitError(row["error"])
                number = int(row["number"])
                done = DoneShard.from_json(row["record"])
                work.advance(plans[number].num_inputs, len(done.skipped))
                yield number, done
        except exceptions.RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise SeitError(
                f"Ray failed ({type(error).__name__}: {reason}); run the same command again, "
                "finished shards are kept"
            ) from error


class ShardActor:
    """Actor that makes shards on a node of the cluster."""

    def __init__(self, *, config: TokenizeConfig, store: str, staged: bool, version: str) -> None:
        self._stack = ExitStack()
        self._failure = ""
        try:
            self._maker = self._prepare(config, Path(store), staged, version)
        except SeitError as error:
            self._failure = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the shard of a row, unless it was finished before a restart of the actor."""
        answer = {"number": row["number"], "record": "", "error": self._failure}
        if self._failure:
            return answer
        plan: ShardPlan = pickle.loads(zlib.decompress(row["plan"]))  # noqa: S301 - the driver's
        try:
            done = self._maker.workspace.read_done(plan) or self._maker.make(plan)
        except SeitError as error:
            return {**answer, "error": str(error)}
        return {**answer, "record": json.dumps(asdict(done))}

    def _prepare(
        self, config: TokenizeConfig, store: Path, staged: bool, version: str
    ) -> ShardMaker:
        if version != seit.__version__:
            raise UsageError(
                f"a node has seit {seit.__version__} and the job was started by {version}; "
                "install one version on all nodes"
            )
        workspace = ActorWorkspace(store, staged=staged)
        tokenizer = with_own_backbone(load_tokenizer(workspace.tokenizer_path), config)
        tokenizer = tokenizer.to(choose_device(config.device))
        workers = max(config.ray_cpus, 1)
        return ShardMaker(
            tokenizer,
            self._stack.enter_context(
                BatchEncoder(tokenizer, workers=workers, compiled=config.compile)
            ),
            self._stack.enter_context(make_reader(replace(config, workers=workers))),
            workspace,
            strict=config.strict,
            advance=_ignore,
        )


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


@contextmanager
def _cluster(config: TokenizeConfig) -> Iterator[bool]:
    """Connect to a cluster for the duration of the job; yield True if its actors get GPUs."""
    ray: Any = import_module("ray")
    is_ours = not ray.is_initialized()
    if is_ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"address": config.ray_address}
        if config.ray_address is None:
            wanted = (config.workers or 1) * config.ray_cpus
            options = {
                "address": "local",
                "num_cpus": max(wanted, os.cpu_count() or 1),
                "include_dashboard": False,
            }
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(
                f"no Ray cluster at {config.ray_address or 'this machine'} ({reason}); start one "
                "with `ray start`, or pass another --ray-address"
            ) from error
    try:
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        yield config.device == "cuda" or (config.device == "auto" and has_gpus)
    finally:
        if is_ours:
            ray.shutdown()


def _count_actors(config: TokenizeConfig, *, wants_gpu: bool) -> int:
    resources = import_module("ray").cluster_resources()
    room = int(resources.get("CPU", 0)) // config.ray_cpus
    if wants_gpu:
        room = min(room, int(resources.get("GPU", 0)))
    if not room:
        needs = f"{config.ray_cpus} cores" + (" and a GPU" if wants_gpu else "")
        raise UsageError(
            f"the cluster has {resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} "
            f"GPUs, too little for an actor of {needs}; lower --ray-cpus or change --device"
        )
    return config.workers or room


@contextmanager
def _quiet_context() -> Iterator[None]:
    """Silence Ray Data's progress bars and reports, and allow long-running shards."""
    context = import_module("ray.data").DataContext.get_current()
    settings = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": -1,
    }
    before = {name: getattr(context, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _ignore(_inputs: int, _skipped: int) -> None:
    """Ignore progress within a shard; it is reported per shard."""
