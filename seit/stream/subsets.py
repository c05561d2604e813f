"""Parts of a split: classes, and label fractions for training with few labels.

Legend: n samples chosen of N.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seit.errors import UsageError
from seit.shards import Split
from seit.stream.order import sample_at

_CLASS_STREAM = 0x636C617373
_ROUNDING = 1e-9
"""0.1 of 100 samples are 10, though 100 × 0.1 is a little more in floating point."""


def select(
    split: Split,
    *,
    classes: Sequence[str | int] | None = None,
    fraction: float = 1.0,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """Rows of a split, ascending: int64 (n,), for the ``subset`` of a loader.

    A fraction is taken of every class by itself, rounded up, and of the samples without a label.
    With one seed a smaller fraction is a part of a larger one.

    Args:
        split: of a store.
        classes: names or numbers of the classes wanted; None for all samples.
        fraction: share of each class's samples, above 0, at most 1: 0.01 and 0.1 are usual.
        seed: decides which samples are chosen.

    Raises:
        UsageError: there is no such class, or the fraction is none.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}; it goes from above 0 to 1")
    labels = split.labels
    wanted = np.unique(labels) if classes is None else _numbers(split, classes)
    parts = []
    for label in wanted.tolist():
        rows = np.flatnonzero(labels == label)
        if len(rows):
            count = math.ceil(len(rows) * fraction - _ROUNDING)
            order = sample_at(
                np.arange(count), len(rows), seed=seed ^ _CLASS_STREAM, epoch=label + 1
            )
            parts.append(rows[order])
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _numbers(split: Split, classes: Sequence[str | int]) -> npt.NDArray[np.int64]:
    numbers = []
    for name in classes:
        if isinstance(name, str) and name not in split.classes:
            raise UsageError(f"{split!r} has no class {name!r}; it has {len(split.classes)} others")
        number = split.classes.index(name) if isinstance(name, str) else name
        if not 0 <= number < len(split.classes):
            raise UsageError(f"class {number} is none of the {len(split.classes)} of {split!r}")
        numbers.append(number)
    return np.unique(np.array(numbers, dtype=np.int64))
