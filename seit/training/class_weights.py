"""Weights of classes in the loss.

Legend: N classes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.classes import near_names, say_near
from seit.documents import parse_yaml, read_plain, reason_of
from seit.errors import UsageError
from seit.shards import LabelSets, Split
from seit.training.run import Run

BALANCED = "balanced"
MAX_WEIGHT = 1000.0
"""Largest balanced weight of a present label."""
_ENTRY = "class_weights"
_MAX_BYTES = 1 << 24


def class_weights(
    setting: str | None, split: Split, *, rows: npt.NDArray[np.integer] | None = None
) -> Tensor | None:
    """Return the weights of a store's classes, float32 (N,); None if all are 1.

    ``balanced`` weights a class by n / (N · n_c), with n labeled samples, n_c of them of the class
    and N classes with samples: the mean weight of a sample is 1. With several labels per sample it
    weights a present label by (n − n_c) / n_c, as PyTorch's ``pos_weight``, at most `MAX_WEIGHT`.
    Otherwise ``setting`` is a YAML or JSON file of weights by class name; classes that it leaves
    out have weight 1.

    Args:
        setting: ``balanced``, a file, or None.
        split: the training split.
        rows: samples that are trained on, int (n,); None for all.

    Raises:
        UsageError: there is no such file, or it names an unknown class or an invalid weight.
    """
    if setting is None:
        return None
    classes = split.classes
    sets = split.label_sets
    if setting == BALANCED and sets is not None:
        return _present_weights(sets if rows is None else sets.of_samples(rows))
    if setting == BALANCED:
        labels = split.labels if rows is None else split.labels[rows]
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        shares = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return torch.from_numpy(np.where(counts > 0, shares, 1.0)).float()
    given = _read(Path(setting))
    unknown = [name for name in given if name not in classes]
    if unknown:
        near = near_names(unknown, classes)
        hint = f"; {say_near(near)}" if near else ""
        raise UsageError(f"{setting} weights {unknown[0]!r}, which is not a class{hint}")
    for name, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise UsageError(f"{setting}: the weight of {name!r} is {value!r}; expected 0 or more")
    return torch.tensor([float(given.get(name, 1.0)) for name in classes])


def _read(path: Path) -> dict[str, Any]:
    """Read values by class name; names may be whole numbers.

    Raises:
        UsageError: the file is missing, too large, or holds no names with values.
    """
    try:
        values = parse_yaml(read_plain(path, max_bytes=_MAX_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}, the file of loss.class_weights, cannot be read: {reason_of(error)}"
        ) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no weights by class name, such as `cat: 2.0`")
    for name in values:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise UsageError(f"{path} names the class {name!r}; put quotes around such a name")
    return {str(name): value for name, value in values.items()}


def record_weights(run: Run, classes: Sequence[str], weights: Tensor) -> None:
    """Write the weights (N,) to `run.json`.

    Raises:
        UsageError: the run was started with other weights.
    """
    found = dict(zip(classes, weights.tolist(), strict=True))
    info = run.info
    if info.setdefault(_ENTRY, found) != found:
        raise UsageError(
            f"{run.path} was started with other class weights; restore their file, or choose "
            "another --out"
        )
    run.write_info(info)


def _present_weights(sets: LabelSets) -> Tensor:
    """Return absent over present samples of each class, float32 (N,); 1 for a class without any."""
    counts, total = sets.counts, int(sets.known.sum())
    shares = (total - counts) / np.maximum(counts, 1)
    weights = np.where(counts > 0, np.clip(shares, 1 / MAX_WEIGHT, MAX_WEIGHT), 1.0)
    return torch.from_numpy(weights).float()
