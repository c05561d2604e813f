"""Protocol of engines, which carry out the tasks of a job here or on other machines.

An engine yields each task's number with its record, in any order, after the task's shards and
record were written. The result depends only on the tasks and the tokenizer, so another engine may
continue the job.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import Encoder
from seit.ingest.inputs.reader import Reader
from seit.tokenizers import Tokenizer

Task = TypeVar("Task")
Record = TypeVar("Record")
_Task_contra = TypeVar("_Task_contra", contravariant=True)
_Record_co = TypeVar("_Record_co", covariant=True)


class Maker(Protocol[_Task_contra, _Record_co]):
    """Maker of what tasks ask for."""

    def make(self, task: _Task_contra, /) -> _Record_co:
        """Carry out a task and record it as done."""


class Plant(Protocol[Task, Record]):
    """Setup of makers; it pickles, so that other machines can set up theirs."""

    def here(self, work: "Work[Task, Record]", encoder: Encoder) -> Maker[Task, Record]:
        """Return a maker of this process."""

    def load_tokenizer(self, config: TokenizeConfig) -> Tokenizer:
        """Load the tokenizer of a running job, on the CPU.

        Raises:
            SeitError: the machine does not reach the job.
        """

    def join(
        self, config: TokenizeConfig, encoders: Sequence[Any], stack: ExitStack
    ) -> Maker[Task, Record]:
        """Return a maker of a running job, in an actor; ``stack`` closes what it opens.

        It encodes by ``encoders``, handles of actors, if there are any. It skips tasks that were
        done before the actor was restarted.

        Raises:
            SeitError: the machine does not reach the job, or must not take part in it.
        """

    def to_json(self, record: Record) -> bytes:
        """Return a record as JSON."""

    def from_json(self, data: bytes) -> Record:
        """Read the output of :meth:`to_json`."""

    def counts(self, task: Task, record: Record) -> tuple[int, int]:
        """Return how many units of progress a task has, and how many inputs it skipped."""


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Task, Record]):
    """Inputs of an engine.

    Attributes:
        config: settings of the job, with the image size resolved.
        plant: setup of the makers.
        tokenizer: tokenizer on the job's device.
        reader: reader of inputs in this process.
        advance: callback that receives units of progress and how many inputs were skipped.
    """

    config: TokenizeConfig
    plant: Plant[Task, Record]
    tokenizer: Tokenizer
    reader: Reader
    advance: Callable[[int, int], None]


class Engine(Protocol):
    """Function that carries out tasks and yields the number of each with its record."""

    def __call__(
        self, work: Work[Task, Record], tasks: Sequence[Task], /
    ) -> Iterator[tuple[int, Record]]:
        """Carry out the tasks."""
