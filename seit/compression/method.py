"""Methods of compression: what all have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seit.compression.config import CompressConfig
from seit.compression.result import CompressResult
from seit.errors import UsageError
from seit.progress import Progress
from seit.report import Section
from seit.shards import Store


@dataclass(frozen=True, kw_only=True)
class Task:
    """One call of `seit.compression.compress`.

    Attributes:
        config: settings; ``config.init_from`` names the run to compress.
        store: the store to calibrate, train and evaluate on.
        out: folder of the new run.
        resume: whether that folder may hold an interrupted run.
        progress: called after each step, on the main rank.
    """

    config: CompressConfig
    store: Store
    out: Path
    resume: bool
    progress: Progress | None

    @property
    def source(self) -> Path:
        """Folder of the run to compress.

        Raises:
            UsageError: none is named.
        """
        if self.config.init_from is None:
            raise UsageError("no run is named; name the finished run to compress")
        return Path(self.config.init_from)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """File that a run is deployed as, in place of its weights.

    Attributes:
        name: name in the run's folder.
        data: the file.
        bytes_before: size of the same kind of file of the run that was compressed.
    """

    name: str
    data: bytes = field(repr=False)
    bytes_before: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings of a method, next to the weights.

    Attributes:
        notes: entries of `run.json`.
        sections: sections of the report, after the result.
        deployment: file that the run is deployed as; None for its weights.
        speed: what was measured against float32, by batch size; None if nothing was.
    """

    notes: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    deployment: Deployment | None = None
    speed: Mapping[str, str] | None = None


class Method(ABC):
    """Method of compression.

    Attributes:
        summary: what it does, for tables and help.
    """

    summary: str

    @abstractmethod
    def run(self, task: Task) -> CompressResult:
        """Compress the run of a task, and leave a finished run folder.

        Raises:
            UsageError: run, settings and store do not fit together; nothing was changed.
            SeitError: a file cannot be written, or the result is not finite.
        """
