"""Single-machine engine: one task at a time, decoding and encoding on all cores."""

from collections.abc import Iterator, Sequence

from seit.ingest.encoder import BatchEncoder
from seit.ingest.engines.base import Record, Task, Work


def make_here(work: Work[Task, Record], tasks: Sequence[Task]) -> Iterator[tuple[int, Record]]:
    """Carry out tasks in this process."""
    config = work.config
    with BatchEncoder(work.tokenizer, workers=config.workers, compiled=config.compile) as encoder:
        maker = work.plant.here(work, encoder)
        for number, task in enumerate(tasks):
            yield number, maker.make(task)
