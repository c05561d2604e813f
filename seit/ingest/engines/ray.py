"""Cluster engine: Ray Data distributes tasks over a pool of actors.

Each actor loads the tokenizer once, reads inputs itself and writes shards to the place of the
store. Ray restarts dead actors and repeats their tasks; finished tasks are on record.
"""

import logging
import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import seit
from seit.errors import SeitError, UsageError
from seit.extras import how_to_install
from seit.ingest.config import TokenizeConfig
from seit.ingest.engines.base import Plant, Record, Task, Work
from seit.ingest.engines.encoders import start_encoders

_MAX_TASKS = 10_000
"""Maximum number of tasks of Ray, which tracks each one; longer jobs put several of ours in one."""


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


def make_on_ray(work: Work[Task, Record], tasks: Sequence[Task]) -> Iterator[tuple[int, Record]]:
    """Carry out tasks in the actors of a running cluster, or of a temporary one.

    Raises:
        UsageError: the cluster cannot be reached or has no room for an actor.
        SeitError: an actor or Ray failed, or an input is unreadable and ``strict`` is set.
    """
    if not tasks:
        return
    data, exceptions = import_module("ray.data"), import_module("ray.exceptions")
    config = work.config
    with _cluster(config) as wants_gpu, _quiet_context():
        own_gpu = wants_gpu and not config.ray_encoders
        actors = _count_actors(config, wants_gpu=own_gpu)
        placed = replace(config, device="cuda" if wants_gpu else "cpu")
        encoders = start_encoders(work.plant, placed, uses_gpu=wants_gpu)
        items = [
            {"number": number, "task": zlib.compress(pickle.dumps(task), 1)}
            for number, task in enumerate(tasks)
        ]
        records = data.from_items(items, override_num_blocks=min(len(items), _MAX_TASKS)).map(
            TaskActor,
            fn_constructor_kwargs={
                "config": placed if own_gpu else replace(placed, device="cpu"),
                "plant": work.plant,
                "encoders": encoders,
                "version": seit.__version__,
            },
            compute=data.ActorPoolStrategy(
                size=min(actors, len(items)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=config.ray_cpus,
            num_gpus=1 if own_gpu else 0,
        )
        try:
            for row in records.iter_rows():
                if row["error"]:
                    raise SeitError(row["error"])
                number = int(row["number"])
                record = work.plant.from_json(row["record"])
                work.advance(*work.plant.counts(tasks[number], record))
                yield number, record
        except exceptions.RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise SeitError(
                f"Ray failed ({type(error).__name__}: {reason}); run the same command again, "
                "what is finished is kept"
            ) from error


class TaskActor:
    """Actor that carries out tasks on a node of the cluster."""

    def __init__(
        self,
        *,
        config: TokenizeConfig,
        plant: Plant[Task, Record],
        encoders: Sequence[Any],
        version: str,
    ) -> None:
        self._stack = ExitStack()
        self._plant = plant
        self._failure = ""
        try:
            if version != seit.__version__:
                raise UsageError(
                    f"a node has seit {seit.__version__} and the job was started by {version}; "
                    "install one version on all nodes"
                )
            self._maker = plant.join(config, encoders, self._stack)
        except SeitError as error:
            self._failure = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Carry out the task of a row."""
        answer = {"number": row["number"], "record": b"", "error": self._failure}
        if self._failure:
            return answer
        task = pickle.loads(zlib.decompress(row["task"]))  # noqa: S301 - the driver's
        try:
            record = self._maker.make(task)
        except SeitError as error:
            return {**answer, "error": str(error)}
        return {**answer, "record": self._plant.to_json(record)}


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
    room = (int(resources.get("CPU", 0)) - config.ray_encoders) // config.ray_cpus
    if wants_gpu:
        room = min(room, int(resources.get("GPU", 0)))
    if room < 1:
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
