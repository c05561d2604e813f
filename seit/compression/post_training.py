"""Methods without training: from a finished run to compressed weights in one pass.

An interrupted run starts again: everything depends on the settings and the seed alone.
"""

import time
from abc import abstractmethod

from typing_extensions import override

from seit.compression.config import CompressConfig
from seit.compression.finish import finish, recorded
from seit.compression.method import Findings, Method, Task
from seit.compression.result import CompressResult
from seit.compression.subject import Subject
from seit.errors import UsageError
from seit.files import write_atomically
from seit.locks import locked_folder
from seit.models import StoredWeights
from seit.processes import world_size
from seit.training import (
    Run,
    check_plain,
    enter_run,
    finished_figures,
    network_changes,
    withdrawn_if_refused,
)


class PostTraining(Method):
    """Method that trains nothing."""

    @abstractmethod
    def compress(self, subject: Subject) -> tuple[StoredWeights, Findings]:
        """Return the compressed weights of a network, and what was found on the way."""

    @override
    def run(self, task: Task) -> CompressResult:
        started = time.perf_counter()
        if world_size() > 1:
            raise UsageError(
                f"{task.config.compression.method} takes one process, and torchrun started "
                f"{world_size()}; call it without torchrun (only qat, prune and distill share work)"
            )
        if not task.resume:
            Run.check_new(task.out)
        done = finished_figures(task.out, task.config, task.store) if task.resume else None
        if done is not None:
            return recorded(done, task.out)
        with locked_folder(task.out):
            is_known = Run.exists(task.out)
            source = Run.open(task.source)
            _check_network(task.config, source)
            subject = Subject.open(source, task.config, task.store, progress=task.progress)
            run = enter_run(
                task.out, task.config, task.store, init_from=source.path, resume=task.resume
            )
            with withdrawn_if_refused(run, is_new=not is_known):
                weights, findings = self.compress(subject)
            if (deployed := findings.deployment) is not None:
                write_atomically(run.path / deployed.name, deployed.data)
            run.save_stored(weights)
            return finish(run, subject, findings, started=started)


def _check_network(config: CompressConfig, source: Run) -> None:
    """Check that the compressed weights will be those of the network that a config names.

    Raises:
        UsageError: the run has modules that cannot be folded into weights, or another network.
    """
    check_plain(source)
    if changes := network_changes(config, source):
        raise UsageError(
            f"{config.compression.method} keeps the network of {source.path}: {changes}"
        )
