"""Files of features: what all formats hold, and how they are read and written.

Legend: n samples, D feature dim, B rows of a block, N classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError

BLOCK_BYTES = 16 << 20
"""Features read at a time."""


@dataclass(frozen=True)
class Origins:
    """Origin of the features in a file.

    Attributes:
        layer: name of the layer.
        split: name of the split.
        store: the seal of the store.
        weights: sha256 of the run's weights, in hexadecimal.
    """

    layer: str = ""
    split: str = ""
    store: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Features:
    """Features of a split's samples, in the split's order.

    Attributes:
        features: float32 (n, D).
        labels: int64 (n,), indices of ``classes``; −1 for an unlabeled sample.
        keys: n texts.
        classes: class names of the store (N,).
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    classes: tuple[str, ...] = ()


class FeatureFile(ABC):
    """Open file of features, read in blocks; labels and keys are in memory.

    Attributes:
        path: the file.
        dim: D.
        labels: int64 (n,), −1 for an unlabeled sample.
        keys: n texts.
        classes: class names (N,).
        origins: layer, split, store and weights.

    Raises:
        DamagedError: the file is corrupt, or holds no features.
    """

    path: Path
    dim: int
    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    origins: Origins

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def block_rows(self) -> int:
        """Rows of a block of at most `BLOCK_BYTES`, at least one."""
        return max(1, BLOCK_BYTES // (4 * self.dim))

    @abstractmethod
    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the features of the rows ``start`` to ``stop``: float32 (stop − start, D).

        Raises:
            DamagedError: they cannot be read.
        """

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield all features in order, as the first row of a block and the block (B, D)."""
        for start in range(0, len(self), self.block_rows):
            yield start, self.read(start, min(start + self.block_rows, len(self)))

    def check(self) -> None:
        """Check that labels, keys and classes fit together.

        Raises:
            DamagedError: they do not.
        """
        low, high = int(self.labels.min(initial=-1)), int(self.labels.max(initial=-1))
        if self.dim < 1 or len(self.keys) != len(self.labels):
            raise self.damaged(f"it holds {len(self.labels):,} labels and {len(self.keys):,} keys")
        if low < -1 or high >= len(self.classes):
            raise self.damaged(f"labels from {low} to {high} for {len(self.classes):,} classes")

    def damaged(self, reason: object) -> DamagedError:
        """Return the error of a file that is not one of features."""
        return DamagedError(
            f"{self.path} is not an intact file of features ({reason}); write it again with "
            "`seit embed`"
        )


class FeatureWriter(ABC):
    """Writes the features of a split, batch by batch, with bounded memory; a context manager.

    Args:
        file: the new file, empty.
        classes: class names (N,).
        origins: layer, split, store and weights.
    """

    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `parquet` that the format needs."""

    def __init__(self, file: BinaryIO, *, classes: Sequence[str], origins: Origins) -> None:
        self.file, self.classes, self.origins = file, classes, origins

    @abstractmethod
    def add(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        keys: Sequence[str],
    ) -> None:
        """Add a batch of features (B, D), labels (B,) and keys (B,)."""

    @abstractmethod
    def finish(self) -> None:
        """Write what follows the last batch."""

    @abstractmethod
    def close(self) -> None:
        """Release what was opened besides the file, whose content is lost unless finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()

    @classmethod
    @abstractmethod
    def open(cls, path: Path) -> FeatureFile:
        """Open a file of this format.

        Raises:
            UsageError: what the format needs is not installed, or there is no file.
            DamagedError: the file is corrupt.
        """


def row_of_origins(origins: Origins) -> dict[str, Any]:
    """Return origins as JSON."""
    return dict(vars(origins))
