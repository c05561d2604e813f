"""`seit compress`: make a finished classifier smaller."""

from pathlib import Path

from seit.compression.config import CompressConfig
from seit.compression.method import Task
from seit.compression.registry import METHODS
from seit.compression.result import CompressResult
from seit.compression.settings import refuse_unused
from seit.progress import Progress
from seit.shards import Store, as_store
from seit.training import refuse_label_sets


def compress(
    config: CompressConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> CompressResult:
    """Compress the run named by ``config.init_from`` and write a run folder to ``out``.

    It is a run like any other: `seit eval`, `predict`, `embed` and `export` take it.

    Args:
        config: settings.
        store: the store of the run, opened or by path; its training split calibrates and trains,
            its validation split is only evaluated.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: continue an interrupted run, if there is one.
        progress: called after each step, on the main rank.

    Raises:
        UsageError: run, settings, store and folder do not fit together; nothing was changed.
        SeitError: a file cannot be written, or a loss is not finite.
    """
    refuse_unused(config, (config.compression.method,))
    opened = as_store(store)
    data = config.data
    refuse_label_sets(
        opened,
        (data.train_split, data.val_split),
        verb="compression",
        instead="seit export writes the run as it is",
    )
    task = Task(config=config, store=opened, out=Path(out), resume=resume, progress=progress)
    return METHODS[config.compression.method].run(task)
