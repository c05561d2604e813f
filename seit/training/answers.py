"""Predicted classes of the evaluated split, as stored in the run folder.

Legend: N samples of the split, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.config import flatten, read_yaml
from seit.confusion import MATRIX_CLASSES, Confusion
from seit.errors import DamagedError, UsageError
from seit.files import write_atomically
from seit.tensors import array_bytes, read_arrays
from seit.training.run import CONFIG_NAME, PREDICTIONS_NAME, RUN_NAME, Run

MOST_LIKELY = 5
"""Classes whose probabilities are kept for each sample, at most."""


@dataclass(frozen=True)
class Likeliest:
    """Probabilities of the likeliest classes of each sample, the likeliest first.

    Attributes:
        classes: int32 (N, k), k the smaller of 5 and the number of classes.
        probabilities: float32 (N, k), 0–1.
        of_labels: float32 (N,), the probability of the sample's own class; NaN without a label.
    """

    classes: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    of_labels: npt.NDArray[np.float32]

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by their names in the file of predictions."""
        return {
            "likeliest_classes": self.classes,
            "probabilities": self.probabilities,
            "label_probabilities": self.of_labels,
        }


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of a run, in the order of the split.

    Attributes:
        store: the seal of the evaluated store.
        split: the name of its split.
        predicted: int64 (N,), the class of the highest logit; −1 where the sample has no label.
        labels: int64 (N,), −1 for an unlabeled sample. If a sample has several, the predicted one
            if that is among them, else another of them.
        likeliest: probabilities; None in a run of an earlier version.
    """

    store: str
    split: str
    predicted: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    likeliest: Likeliest | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Correctness of each labeled sample: bool (n,), without the unlabeled ones.

        Of several labels per sample, one of no class is a labeled one, and never right.
        """
        known = self.predicted >= 0
        right: npt.NDArray[np.bool_] = (self.predicted == self.labels)[known]
        return right

    def is_of_same_samples(self, other: "Predictions") -> bool:
        """Return whether both cover the same samples in the same order."""
        return (self.store, self.split) == (other.store, other.split) and np.array_equal(
            self.predicted >= 0, other.predicted >= 0
        )


def write_predictions(
    run: Run,
    predictions: npt.NDArray[np.int64],
    labels: npt.NDArray[np.integer],
    likeliest: Likeliest,
) -> None:
    """Write the predicted class, label and probabilities of each sample of a split, all (N, …)."""
    own = {"predictions": predictions, "labels": labels.astype(np.int64)}
    data = array_bytes({**own, **likeliest.tensors()})
    write_atomically(run.path / PREDICTIONS_NAME, data)


def read_predictions(run: Run) -> Predictions | None:
    """Read the predictions in a run folder; return None if there are none.

    Raises:
        DamagedError: the file is corrupt.
    """
    path = run.path / PREDICTIONS_NAME
    if not path.exists():
        return None
    tensors = read_arrays(path)
    try:
        predicted, labels = tensors["predictions"], tensors["labels"]
    except KeyError as error:
        raise DamagedError(f"{path} is damaged ({error}); restore it from a copy") from error
    info = run.info["identity"]
    classes = len(info["classes"])
    split = str(flatten(read_yaml(run.path / CONFIG_NAME)).get("data.val_split", "val"))
    for what in (predicted, labels):
        is_fine = what.ndim == 1 and what.dtype.kind == "i" and what.shape == labels.shape
        if not is_fine or (what.size and not -1 <= what.min() <= what.max() < classes):
            raise DamagedError(
                f"{path} holds {predicted.dtype} {predicted.shape} for {len(labels):,} samples of "
                f"{classes} classes, not a class for each; restore it from a copy"
            )
    if (predicted[labels >= 0] < 0).any():
        raise DamagedError(f"{path} names no class for some samples; restore it from a copy")
    return Predictions(
        str(info["store"]),
        split,
        predicted.astype(np.int64),
        labels.astype(np.int64),
        _read_likeliest(tensors, len(labels), classes, origin=path),
    )


def _read_likeliest(
    tensors: Mapping[str, npt.NDArray[Any]], samples: int, num_classes: int, *, origin: Path
) -> Likeliest | None:
    """Check the probabilities of a file of predictions; None if it has none."""
    names = ("likeliest_classes", "probabilities", "label_probabilities")
    if not any(name in tensors for name in names):
        return None
    classes, shares, own = (tensors.get(name, np.empty(0)) for name in names)
    most = min(MOST_LIKELY, num_classes)
    is_fine = (
        classes.dtype == np.int32
        and shares.dtype == own.dtype == np.float32
        and classes.shape == shares.shape == (samples, most)
        and own.shape == (samples,)
        and (not classes.size or 0 <= classes.min() <= classes.max() < num_classes)
        and bool(((shares >= 0) & (shares <= 1.001)).all())
    )
    if not is_fine:
        raise DamagedError(
            f"{origin} holds invalid probabilities; expected {most} classes and their float32 "
            f"shares for each of {samples:,} samples; restore it from a copy"
        )
    return Likeliest(classes, shares, own)


def confusion_record(confusion: Confusion) -> dict[str, Any]:
    """Return the confusion as `run.json` keeps it: the matrix (C, C) for up to 100 classes.

    With more classes it is rebuilt from `predictions.safetensors`, so no file grows with C².
    """
    if confusion.num_classes > MATRIX_CLASSES:
        return {}
    return {"confusion": confusion.to_matrix().tolist()}


def read_confusion(run: Run) -> Confusion:
    """Read the confusion of a finished classifier.

    Raises:
        DamagedError: `run.json` or `predictions.safetensors` is corrupt.
    """
    recorded, num_classes = run.info.get("confusion"), len(run.classes)
    if recorded is None:
        predictions = read_predictions(run)
        if predictions is None:
            raise DamagedError(
                f"{run.path} holds no {PREDICTIONS_NAME}, which tells what was confused; restore "
                "it from a copy"
            )
        return Confusion.of_labels(predictions.labels, predictions.predicted, num_classes)
    try:
        confusion = Confusion.of_matrix(np.array(recorded))
        if confusion.num_classes != num_classes:
            raise UsageError(f"its confusion is of {confusion.num_classes} classes")
    except (UsageError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError(
            f"{run.path / RUN_NAME} is damaged ({error}); restore it from a copy"
        ) from error
    return confusion
