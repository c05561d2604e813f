"""Predictions and evaluations as CSV tables: UTF-8, one header line, commas.

Legend: N classes.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from seit.confusion import MATRIX_CLASSES, Confusion
from seit.errors import UsageError
from seit.files import check_new_file, explained_writes, new_file
from seit.store_folders import refuse_inside_store
from seit.training.evaluate import RunEvaluation
from seit.training.prediction import Prediction

CLASSES_NAME = "classes.csv"
PAIRS_NAME = "confusion.csv"
MATRIX_NAME = "confusion_matrix.csv"
PREDICTIONS_NAME = "predictions.csv"
SUFFIX = ".csv"


@contextmanager
def prediction_table(path: Path, *, top: int) -> "Iterator[PredictionTable]":
    """Open a new table of predictions, whose rows are written as they come.

    It gets its name at the end; what an interrupted call has written is removed.

    Its columns are ``file``, ``class`` and ``probability`` of the most probable class, ``class_2``
    and so on up to ``top``, and ``error``, why a file cannot be read.

    Raises:
        UsageError: the file exists, or its folder does not.
    """
    check_new_file(path)
    ends = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    with new_file(path) as binary:
        file = io.TextIOWrapper(binary, newline="", **_TEXT)
        writer = csv.writer(file)
        writer.writerow(
            [
                "file",
                *(f"{name}{end}" for end in ends for name in ("class", "probability")),
                "error",
            ]
        )
        yield PredictionTable(writer, top)
        file.detach()


class PredictionTable:
    """Open table of predictions."""

    def __init__(self, writer: Any, top: int) -> None:
        self._writer, self._top = writer, top

    def add(self, prediction: Prediction) -> None:
        """Write one row."""
        named = [(name, f"{share:.6g}") for name, share in prediction.classes]
        cells = [pair for pair, _ in zip_longest(named, range(self._top), fillvalue=("", ""))]
        self._writer.writerow([prediction.file, *chain(*cells), prediction.error or ""])


def check_new_tables(out: Path) -> None:
    """Check that `write_evaluation` can write to ``out``.

    Raises:
        UsageError: it is an existing file, a folder that is not empty, or lies in a store.
    """
    if out.suffix == SUFFIX:
        return check_new_file(out)
    refuse_inside_store(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already holds something; choose a new folder, or a .csv file")
    return None


def write_evaluation(out: Path, evaluation: RunEvaluation, keys: Sequence[str]) -> None:
    """Write the tables of an evaluation.

    A folder gets `classes.csv` (precision, recall, F1, support; average precision of several labels
    per sample), `confusion.csv` (a row per
    occurring pair of a true and a predicted class), `confusion_matrix.csv` (rows are true classes)
    for up to 100 classes, and `predictions.csv` (a row per sample). A path that ends in `.csv` gets
    the first of them only.

    Args:
        out: a new folder, or a new file.
        evaluation: evaluation of a run.
        keys: keys of all samples of the split, in its order.

    Raises:
        UsageError: ``out`` is not new.
        SeitError: the disk is full.
    """
    check_new_tables(out)
    if out.suffix == SUFFIX:
        return _write(out, *_class_rows(evaluation))
    with explained_writes(out):
        out.mkdir(parents=True, exist_ok=True)
    confusion, classes = evaluation.confusion, evaluation.classes
    _write(out / CLASSES_NAME, *_class_rows(evaluation))
    if evaluation.scores is not None:
        return _write_label_sets(out / PREDICTIONS_NAME, evaluation, keys)
    _write(out / PAIRS_NAME, ["true", "predicted", "samples"], _pair_rows(confusion, classes))
    if len(classes) <= MATRIX_CLASSES:
        matrix = confusion.to_matrix().tolist()
        rows = ([name, *row] for name, row in zip(classes, matrix, strict=True))
        _write(out / MATRIX_NAME, ["true", *classes], rows)
    known = np.flatnonzero(evaluation.labels >= 0).tolist()
    _write(
        out / PREDICTIONS_NAME,
        ["key", "true", "predicted"],
        (
            [keys[row], classes[evaluation.labels[row]], classes[evaluation.predictions[row]]]
            for row in known
        ),
    )
    return None


def _class_rows(evaluation: RunEvaluation) -> tuple[list[str], Iterator[list[Any]]]:
    scores, confusion = evaluation.scores, evaluation.confusion
    found = confusion if scores is None else scores
    columns: dict[str, Iterable[Any]] = {
        "class": evaluation.classes,
        "precision": map(_share, found.precisions.tolist()),
        "recall": map(_share, found.recalls.tolist()),
        "f1": map(_share, found.f1s.tolist()),
        "support": found.support.tolist(),
        "predicted": (confusion.taken if scores is None else scores.predicted).tolist(),
    }
    if scores is not None:
        columns["average_precision"] = map(_share, scores.average_precisions.tolist())
    return list(columns), map(list, zip(*columns.values(), strict=True))


def _write_label_sets(path: Path, evaluation: RunEvaluation, keys: Sequence[str]) -> None:
    """Write a row for each labeled sample: its labels and the probability of each class."""
    scores, classes = evaluation.scores, evaluation.classes
    assert scores is not None, "of several labels per sample"
    known = np.flatnonzero(evaluation.predictions >= 0).tolist()
    rows = (
        [
            keys[row],
            json.dumps([classes[label] for label in np.flatnonzero(present)], ensure_ascii=False),
            *(f"{share:.6g}" for share in shares.tolist()),
        ]
        for row, present, shares in zip(known, scores.targets, scores.probabilities, strict=True)
    )
    _write(path, ["key", "true", *classes], rows)


def _pair_rows(confusion: Confusion, classes: Sequence[str]) -> Iterator[list[Any]]:
    rows = (confusion.true.tolist(), confusion.predicted.tolist(), confusion.counts.tolist())
    return ([classes[i], classes[j], count] for i, j, count in zip(*rows, strict=True))


def _share(value: float) -> str:
    """Format a fraction; return an empty string if it is undefined."""
    return "" if np.isnan(value) else f"{value:.6g}"


_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with explained_writes(path), path.open("x", newline="", **_TEXT) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
