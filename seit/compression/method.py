"""Methods of compression: what all have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seit.compression.config import CompressConfig
from seit.compression.result import CompressResult
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


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Findings of a method, beside the weights.

    Attributes:
        notes: entries of `run.json`.
        sections: sections of the report, after the result.
    """

    notes: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


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
