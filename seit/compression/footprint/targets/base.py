"""Base of what can be measured.

Everything is read from safetensors and ONNX graphs; nothing of a file is executed as a program.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seit.training import Footprint, LayerFootprint

Call = Callable[[], object]
"""One forward pass of a batch."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Figures that follow from the files alone.

    Attributes:
        name: what was counted, in words.
        runtime: what runs it.
        whole: the sums.
        layers: its layers.
    """

    name: str
    runtime: str
    whole: Footprint
    layers: tuple[LayerFootprint, ...]


class Loaded(ABC):
    """A network in memory, ready for batches."""

    @abstractmethod
    def call(self, batch_size: int) -> Call:
        """Return a forward pass of a batch of ``batch_size`` samples.

        Raises:
            UsageError: it does not take such batches.
        """


class Target(ABC):
    """Target of a measurement, by path.

    Attributes:
        kind: its name in the request to the measuring process.
        path: the run's folder, the file, or the name of a tokenizer of the package.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @abstractmethod
    def fits(cls, path: Path) -> bool:
        """Return whether a path names such a target."""

    @abstractmethod
    def prepare(self) -> None:
        """Check the files and import what runs them, before memory is measured.

        Raises:
            SeitError: the files are damaged, or a package is missing.
        """

    @abstractmethod
    def counts(self) -> Counts:
        """Count parameters, bytes and operations.

        Raises:
            SeitError: the files are missing, damaged or of another kind.
        """

    @abstractmethod
    def load(self, threads: int) -> Loaded:
        """Load the network on the CPU, to use ``threads`` threads; errors as in :meth:`counts`."""
