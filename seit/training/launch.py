"""Start, resumption and end of a run: its folder, lock and first step.

Works in one process or in several started by `torchrun`.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch

from seit.errors import UsageError
from seit.locks import locked_folder
from seit.models import count_parameters
from seit.progress import Progress
from seit.shards import Store
from seit.training.checkpoint import list_checkpoints
from seit.training.config import LoopConfig
from seit.training.objective import LoopFigures, Objective, Result
from seit.training.origin import check_origins, describe_origins
from seit.training.ranks import Ranks, join_ranks
from seit.training.run import Run
from seit.training.speech.data import SoundData
from seit.training.step import Stepper
from seit.training.trainer import Trainer

_LOG = logging.getLogger(__name__)


def run_objective(
    make: Callable[[Ranks, Path | None], Objective[Result]],
    config: LoopConfig,
    store: Store | SoundData,
    *,
    out: Path,
    resume: bool,
    files: Collection[str],
    recorded: Callable[[Mapping[str, Any]], Result],
    progress: Progress | None,
    teacher: Path | None = None,
    beside: Collection[str] = (),
    keeps_start: bool = False,
) -> Result:
    """Train an objective on ``store`` and write a run folder to ``out``.

    Args:
        make: builds the objective, with torch's generator seeded, from the weights of a run, or
            None. A run that resumes from a checkpoint gets None unless ``keeps_start`` is set.
            If it raises a `UsageError`, no folder remains.
        config: settings of the run.
        store: training data.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: continue an interrupted run, if there is one. For a finished run, recreate missing
            ``files`` from its last checkpoint.
        files: names of the files of a finished run.
        recorded: builds the result from the record of a finished run in `run.json`.
        progress: called after each step, on the main rank.
        teacher: the teacher's run, if there is one.
        beside: other names that a new folder may contain.
        keeps_start: whether the initial weights are needed to the end.

    Raises:
        UsageError: settings, store and folder do not fit together; nothing was changed.
        SeitError: the loss or the weights are no longer finite, a file cannot be written, or
            another process works on the run.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the current step and a checkpoint.
    """
    with join_ranks(config.run.device) as ranks:
        if ranks.is_main and not resume:
            Run.check_new(out, beside=beside)
        finished = finished_figures(out, config, store) if resume else None
        if finished is not None and not has_to_end(Run(out), files):
            return recorded(finished)
        with locked_folder(out) if ranks.is_main else nullcontext():
            call = _Call(make, config, store, out, ranks, teacher, beside, keeps_start)
            result = call.train(
                resume=resume,
                finished=None if finished is None else recorded(finished),
                progress=progress if ranks.is_main else None,
            )
            ranks.wait()
        return result


@dataclass(frozen=True)
class _Call(Generic[Result]):
    """One call of :func:`run_objective`, which holds the folder's lock."""

    make: Callable[[Ranks, Path | None], Objective[Result]]
    config: LoopConfig
    store: Store | SoundData
    out: Path
    ranks: Ranks
    teacher: Path | None
    beside: Collection[str]
    keeps_start: bool

    def train(self, *, resume: bool, finished: Result | None, progress: Progress | None) -> Result:
        """Take the remaining steps and write all files.

        ``finished`` is the result of a finished run with missing files.
        """
        started = time.perf_counter()
        is_known = Run.exists(self.out)
        needs_start = self.keeps_start or not has_checkpoint(self.out, resume=resume)
        start = self.config.init_from if needs_start else None
        init_from = None if start is None else Path(start)
        torch.manual_seed(self.config.run.seed)
        objective = self.make(self.ranks, init_from)
        stepper = Stepper(objective, self.ranks)
        if self.ranks.is_main:
            enter_run(
                self.out,
                self.config,
                self.store,
                init_from=init_from,
                teacher=self.teacher,
                resume=resume,
                beside=self.beside,
            )
        self.ranks.wait()
        run = Run.open(self.out)
        with withdrawn_if_refused(run, is_new=self.ranks.is_main and not is_known):
            objective.begin(run)
            trainer = Trainer(objective, self.store, stepper, run, progress)
            trainer.finish()
        result = finished or objective.result(
            LoopFigures(
                steps=trainer.total,
                samples_per_second=trainer.journal.samples_per_second,
                data_wait_fraction=trainer.journal.data_wait_fraction,
                seconds=time.perf_counter() - started,
                parameters=count_parameters(objective.kept_model(objective.model)),
            )
        )
        if self.ranks.is_main:
            trainer.leave(result)
        return result


def enter_run(
    out: Path,
    config: LoopConfig,
    store: Store | SoundData,
    *,
    init_from: Path | None,
    resume: bool,
    teacher: Path | None = None,
    beside: Collection[str] = (),
) -> Run:
    """Create the folder of a new run, or open that of an interrupted run of the same origins.

    Args:
        out: the folder.
        config: settings of the run.
        store: training data.
        init_from: the run to take initial weights from.
        resume: whether the folder may hold a run.
        teacher: the teacher's run.
        beside: other names that a new folder may contain.

    Raises:
        UsageError: the folder holds something else, or a run with other settings or origins.
    """
    origins = describe_origins(config, init_from=init_from, teacher=teacher)
    if resume and Run.exists(out):
        check_origins(Run.open(out), origins)
    return Run.start(out, config, store, resume=resume, beside=beside, notes=origins)


@contextmanager
def withdrawn_if_refused(run: Run, *, is_new: bool) -> Iterator[None]:
    """Remove a new run if a `UsageError` is raised before its first checkpoint."""
    try:
        yield
    except UsageError:
        if is_new and not list_checkpoints(run.checkpoints):
            run.withdraw()
        raise


def has_checkpoint(out: Path, *, resume: bool) -> bool:
    """Return whether the call resumes from a checkpoint, which includes all initial weights."""
    return resume and Run.exists(out) and bool(list_checkpoints(Run(out).checkpoints))


def finished_figures(
    out: Path, config: LoopConfig, store: Store | SoundData
) -> Mapping[str, Any] | None:
    """Return the result of the run at ``out``, if it has finished all steps of ``config``."""
    if not Run.exists(out):
        return None
    run = Run.open(out)
    run.check_same(config, store)
    if run.info["status"] != "finished" or run.own_settings.schedule != config.schedule:
        return None
    found: Mapping[str, Any] = run.info["result"]
    return found


def has_to_end(run: Run, files: Collection[str]) -> bool:
    """Return whether a finished run lacks files that its last checkpoint can recreate."""
    missing = [name for name in files if not (run.path / name).is_file()]
    if not missing:
        return False
    if not list_checkpoints(run.checkpoints):
        _LOG.warning(
            "%s has finished but has no %s, and no checkpoint to make it from",
            run.path,
            " and no ".join(missing),
        )
        return False
    _LOG.info("%s has finished but has no %s: making it", run.path, " and no ".join(missing))
    return True
