"""Neighbors of samples, and the classes that their nearest neighbors predict.

Legend: M queries, k neighbors, N classes.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.analysis.neighbors.index import QUERY_ROWS, Nearest, NeighborIndex
from seit.classes import match_classes
from seit.devices import choose_device
from seit.errors import UsageError
from seit.files import check_new_file, explained_writes
from seit.outcomes import Outcome
from seit.progress import Count
from seit.training import FeatureFile, open_features

TEMPERATURE = 0.07
"""Divisor of cosines in the votes (Wu et al., arXiv 1805.01978)."""


@dataclass(frozen=True)
class Neighbor:
    """Neighbor of a sample.

    Attributes:
        key: its key.
        label: its class; None if unlabeled.
        similarity: cosine, −1 to 1.
    """

    key: str
    label: str | None
    similarity: float


@dataclass(frozen=True)
class QueryNeighbors:
    """Sample and its neighbors, the nearest first."""

    key: str
    label: str | None
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True, repr=False)
class NeighborsResult(Outcome):
    """Result of a search.

    Attributes:
        samples: number of queries.
        k: number of neighbors of each; all others of the file, if it has fewer than were asked for.
        layer: layer of the features.
        queries: the neighbors of each key that was asked for; empty for whole files.
        labeled: number of labeled queries of classes in the file; None for keys.
        knn_top1: share of those whose k neighbors vote for their class, 0–1; likewise.
        nearest_top1: share of those whose nearest neighbor has their class.
        chance: share of the most frequent class among them.
    """

    samples: int
    k: int
    layer: str
    queries: tuple[QueryNeighbors, ...] = ()
    labeled: int | None = None
    knn_top1: float | None = None
    nearest_top1: float | None = None
    chance: float | None = None


def find_neighbors(
    path: str | Path,
    *,
    keys: Sequence[str] = (),
    queries: str | Path | None = None,
    k: int = 10,
    out: str | Path | None = None,
    device: str = "auto",
    progress: Count | None = None,
) -> NeighborsResult:
    """Find the nearest neighbors of samples in a file of features; see `seit.neighbors`."""
    if keys and queries is not None:
        raise UsageError("keys and queries are both given; choose one")
    table = None if out is None else Path(out)
    if table is not None:
        check_new_file(table)
    index = NeighborIndex(path, device=str(choose_device(device)))
    if keys:
        return _of_keys(index, list(keys), k, table)
    asked = index.features if queries is None else open_features(queries)
    other = asked.origins.weights, asked.origins.layer
    if queries is not None and other != (
        index.features.origins.weights,
        index.features.origins.layer,
    ):
        raise UsageError(
            f"{queries} and {path} hold features of other runs or layers; embed both alike"
        )
    return _of_file(index, asked, is_own=queries is None, k=k, table=table, progress=progress)


def _of_keys(index: NeighborIndex, keys: list[str], k: int, table: Path | None) -> NeighborsResult:
    rows = index.rows_of(keys)
    own = np.array(rows, np.int64)
    nearest = index.search(index.vectors(rows), k=k, rows=own)
    found = tuple(_described(index, index.features, own, nearest))
    with _table(table) as writer:
        _write(writer, found)
    return NeighborsResult(len(keys), min(k, len(index) - 1), index.features.origins.layer, found)


def _of_file(
    index: NeighborIndex,
    asked: FeatureFile,
    *,
    is_own: bool,
    k: int,
    table: Path | None,
    progress: Count | None,
) -> NeighborsResult:
    """Search for all samples of a file, some hundreds at a time."""
    numbers = match_classes(asked.classes, index.features.classes)
    labels = numbers.relabel(asked.labels)
    voted = np.full(len(asked), -1, np.int64)
    first = np.full(len(asked), -1, np.int64)
    step = 4 * QUERY_ROWS
    with _table(table) as writer:
        for start in range(0, len(asked), step):
            rows = np.arange(start, min(start + step, len(asked)))
            values = asked.read(int(rows[0]), int(rows[-1]) + 1)
            nearest = index.search(values, k=k, rows=rows if is_own else None)
            voted[rows], first[rows] = vote(nearest, index.features.labels)
            if writer is not None:
                _write(writer, _described(index, asked, rows, nearest))
            if progress is not None:
                progress(len(rows) + start, len(asked))
    known = labels >= 0
    count, k = int(known.sum()), min(k, len(index) - is_own)
    layer = index.features.origins.layer
    if not count:
        return NeighborsResult(len(asked), k, layer, labeled=0)
    return NeighborsResult(
        samples=len(asked),
        k=k,
        layer=layer,
        labeled=count,
        knn_top1=float((voted == labels)[known].mean()),
        nearest_top1=float((first == labels)[known].mean()),
        chance=int(np.bincount(labels[known]).max()) / count,
    )


def vote(
    nearest: Nearest, labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the classes that neighbors predict: by weighted votes (M,), and of the nearest (M,).

    Votes are weighted by exp(cosine / 0.07). Neighbors without a label do not vote; −1 where none
    has one.

    Args:
        nearest: rows and cosines (M, k).
        labels: int64 (n,), labels of the rows.
    """
    given = np.append(labels, -1)[nearest.rows]
    top = nearest.similarities[:, :1]
    finite = np.isfinite(nearest.similarities)
    gaps = np.where(finite, nearest.similarities, -np.inf) - np.where(np.isfinite(top), top, 0)
    weights = np.where(given >= 0, np.exp(gaps / TEMPERATURE), 0.0)
    classes, places = np.unique(given, return_inverse=True)
    scores = np.zeros((len(given), len(classes)))
    rows = np.arange(len(given))[:, None]
    np.add.at(scores, (rows, places.reshape(given.shape)), weights)
    voted = np.where(scores.max(1) > 0, classes[scores.argmax(1)], -1)
    has_label = given >= 0
    nearest_one = given[np.arange(len(given)), has_label.argmax(1)]
    return voted.astype(np.int64), nearest_one.astype(np.int64)


def _described(
    index: NeighborIndex, asked: FeatureFile, rows: npt.NDArray[np.int64], nearest: Nearest
) -> Iterator[QueryNeighbors]:
    there = index.features
    pairs = zip(nearest.rows.tolist(), nearest.similarities.tolist(), strict=True)
    for row, (places, values) in zip(rows.tolist(), pairs, strict=True):
        found = tuple(
            Neighbor(there.keys[place], _class(there, place), value)
            for place, value in zip(places, values, strict=True)
            if place >= 0
        )
        yield QueryNeighbors(asked.keys[row], _class(asked, row), found)


def _class(file: FeatureFile, row: int) -> str | None:
    label = int(file.labels[row])
    return file.classes[label] if label >= 0 else None


@contextmanager
def _table(path: Path | None) -> Iterator[Any]:
    """Open a new CSV table of neighbors; None without a path."""
    if path is None:
        yield None
        return
    with (
        explained_writes(path),
        path.open("x", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["key", "class", "rank", "neighbor", "neighbor_class", "similarity"])
        yield writer


def _write(writer: Any, found: "Iterator[QueryNeighbors] | Sequence[QueryNeighbors]") -> None:
    if writer is None:
        return
    for one in found:
        for rank, near in enumerate(one.neighbors, 1):
            value = f"{near.similarity:.6g}"
            writer.writerow([one.key, one.label or "", rank, near.key, near.label or "", value])
