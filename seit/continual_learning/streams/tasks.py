"""Streams: sequences of tasks, as rows of a split.

A stream is made from labels alone, before any sample is read, and is identical on every machine.
Equal fingerprints mean that two results are of the same stream.

Legend: N samples of the training split, M of the evaluated one, n and m those of a task, C classes.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seit.classes import listed
from seit.errors import UsageError
from seit.stream import sample_at

StreamKind = Literal["class", "domain", "online", "blurry"]
Rows = npt.NDArray[np.int64]
_ARRIVAL_STREAM = 0x6172726976616C
"""Separates the order of arrival from a loader's order with the same seed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Part of a stream; in a task-free one it only records where rows came from.

    Attributes:
        index: index from 0.
        classes: labels that first occur in it, in the stream's order; all labels in a domain
            stream.
        rows: int64 (n,), rows of the training split, ascending; in order of arrival in a task-free
            stream.
        val_rows: int64 (m,), rows of the evaluated split that belong to it, ascending.
        val_classes: classes of its evaluated rows: ``classes``, or in a blurry stream the classes
            whose own task it is, some of which may have occurred before.
        name: display name: ``classes 1–10`` of the stream's order, or a domain.
    """

    index: int
    classes: tuple[int, ...]
    rows: Rows
    val_rows: Rows
    val_classes: tuple[int, ...]
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Sequence of tasks.

    Attributes:
        kind: ``class``: new classes in each task; ``domain``: the same classes from other domains;
            ``online``: one pass over either, without task boundaries; ``blurry``: the same with
            recurring classes.
        tasks: tasks in order.
        class_order: all classes, in the order in which tasks introduce them.
        num_classes: C, of the corpus.
    """

    kind: StreamKind
    tasks: tuple[Task, ...]
    class_order: tuple[int, ...]
    num_classes: int

    @property
    def task_free(self) -> bool:
        """True if samples are seen once and without task boundaries."""
        return self.kind in ("online", "blurry")

    def seen_classes(self, index: int) -> tuple[int, ...]:
        """Return the classes seen up to and including task ``index``, in the stream's order."""
        seen = set(chain.from_iterable(task.classes for task in self.tasks[: index + 1]))
        return tuple(label for label in self.class_order if label in seen)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of kind, class order and the rows of every task."""
        digest = hashlib.sha256(f"{self.kind} {self.num_classes}".encode())
        columns: list[Any] = [self.class_order]
        for task in self.tasks:
            columns += [task.classes, task.rows, task.val_rows]
        for column in columns:
            numbers = np.asarray(column, dtype="<i8")
            digest.update(len(numbers).to_bytes(8, "little") + numbers.tobytes())
        return digest.hexdigest()

    @property
    def increments(self) -> list[int]:
        """Number of classes of each task that no earlier task has."""
        met = [len(self.seen_classes(task.index)) for task in self.tasks]
        return [now - before for before, now in pairwise([0, *met])]

    def describe(self) -> dict[str, Any]:
        """Return the stream's entry of a result file; ``increments`` are new classes per task."""
        return {
            "kind": self.kind,
            "task_free": self.task_free,
            "num_classes": self.num_classes,
            "class_order": list(self.class_order),
            "increments": self.increments,
            "tasks": [task.name for task in self.tasks],
            "samples": [len(task.rows) for task in self.tasks],
            "val_samples": [len(task.val_rows) for task in self.tasks],
            "fingerprint": self.fingerprint,
        }


def class_incremental(
    labels: npt.NDArray[np.integer],
    val_labels: npt.NDArray[np.integer],
    *,
    num_classes: int,
    increment: int,
    initial: int | None = None,
    order: Sequence[int],
) -> Stream:
    """Return a stream with new classes in every task: B0-IncM, or B(C/2)-IncM.

    The latter needs ``initial`` = C // 2. The last task is smaller if ``increment`` does not divide
    the remaining classes.

    Args:
        labels: int (N,) of the training split; unlabeled samples (−1) belong to no task.
        val_labels: int (M,) of the evaluated split.
        num_classes: C.
        increment: new classes per task.
        initial: classes of the first task; None for ``increment``.
        order: every class once; see :func:`seit.continual_learning.streams.orders.class_order`.

    Raises:
        UsageError: a size is out of range, or a class has no training or evaluated sample.
    """
    check_labels(labels, val_labels, num_classes=num_classes)
    assert sorted(order) == list(range(num_classes)), "an order is checked where it is read"
    first = increment if initial is None else initial
    for name, size in (("increment", increment), ("initial", first)):
        if not 1 <= size <= num_classes:
            raise UsageError(
                f"{name} is {size}; expected 1 to {num_classes}, the classes there are"
            )
    bounds = [0, *range(first, num_classes, increment), num_classes]
    tasks = []
    for index, (start, stop) in enumerate(pairwise(bounds)):
        classes = tuple(order[start:stop])
        tasks.append(
            Task(
                index=index,
                classes=classes,
                rows=np.flatnonzero(np.isin(labels, classes)),
                val_rows=np.flatnonzero(np.isin(val_labels, classes)),
                val_classes=classes,
                name=span_name(start, stop),
            )
        )
    return Stream(
        kind="class", tasks=tuple(tasks), class_order=tuple(order), num_classes=num_classes
    )


def domain_incremental(
    labels: npt.NDArray[np.integer],
    val_labels: npt.NDArray[np.integer],
    domains: Sequence[str],
    val_domains: Sequence[str],
    *,
    num_classes: int,
) -> Stream:
    """Return a stream with the same classes in every task, each from another domain.

    Tasks are sorted by domain name, with numbers compared by value (``day2`` before ``day10``),
    independent of the order of the store.

    Args:
        labels: int (N,) of the training split; unlabeled samples (−1) belong to no task.
        val_labels: int (M,) of the evaluated split.
        domains: N names; see :func:`seit.continual_learning.streams.domains.read_domains`.
        val_domains: M names.
        num_classes: C.

    Raises:
        UsageError: a domain or a class has no training or evaluated sample.
    """
    check_labels(labels, val_labels, num_classes=num_classes)
    for name, names, count in (
        ("training", domains, len(labels)),
        ("evaluated", val_domains, len(val_labels)),
    ):
        if len(names) != count:
            raise UsageError(f"{len(names)} domains for {count} samples of the {name} split")
    own = np.array(domains, dtype=object)[labels >= 0]
    val_own = np.array(val_domains, dtype=object)[val_labels >= 0]
    rows, val_rows = np.flatnonzero(labels >= 0), np.flatnonzero(val_labels >= 0)
    known, tested = set(own.tolist()), set(val_own.tolist())
    for domain in sorted(known ^ tested)[:1]:
        lacking = "evaluated" if domain in known else "training"
        raise UsageError(
            f"domain {domain!r} has no labeled sample in the {lacking} split; add some, or leave "
            "the domain out of both"
        )
    tasks = tuple(
        Task(
            index=index,
            classes=tuple(range(num_classes)),
            rows=rows[own == domain],
            val_rows=val_rows[val_own == domain],
            val_classes=tuple(range(num_classes)),
            name=domain,
        )
        for index, domain in enumerate(sorted(known, key=_natural))
    )
    return Stream(
        kind="domain", tasks=tasks, class_order=tuple(range(num_classes)), num_classes=num_classes
    )


def online(stream: Stream, *, seed: int) -> Stream:
    """Return one pass over a class or domain stream, each task's rows shuffled by ``seed``.

    The place of a row depends on the seed, the task and its position alone.
    """
    assert stream.kind in ("class", "domain"), "others are in the order of arrival already"
    tasks = tuple(
        replace(task, rows=in_order_of_arrival(task.rows, seed=seed, index=task.index))
        for task in stream.tasks
    )
    return Stream(
        kind="online",
        tasks=tasks,
        class_order=stream.class_order,
        num_classes=stream.num_classes,
    )


def in_order_of_arrival(rows: Rows, *, seed: int, index: int) -> Rows:
    """Return the rows of task ``index`` (n,), shuffled."""
    return rows[
        sample_at(np.arange(len(rows)), len(rows), seed=seed ^ _ARRIVAL_STREAM, epoch=index)
    ]


def check_labels(
    labels: npt.NDArray[np.integer],
    val_labels: npt.NDArray[np.integer],
    *,
    num_classes: int,
    classes: Sequence[str] | None = None,
) -> None:
    """Raise UsageError if a class has no sample in a split; ``classes`` are names, if known."""
    for name, column in (("training", labels), ("evaluated", val_labels)):
        counts = np.bincount(column[column >= 0], minlength=num_classes)
        assert len(counts) == num_classes, "a split's labels are below the number of its classes"
        missing = np.flatnonzero(counts == 0)
        if len(missing):
            lacking = missing.tolist()
            named = listed([classes[one] if classes else f"class {one}" for one in lacking])
            raise UsageError(
                f"{len(missing)} of {num_classes} classes have no sample in the {name} split: "
                f"{named}; add some, or keep the other classes with `seit filter STORE NEW "
                "--classes …`"
            )


def span_name(start: int, stop: int) -> str:
    """Return the name of a task with the classes from ``start`` to below ``stop`` of the order."""
    return f"class {stop}" if stop - start == 1 else f"classes {start + 1}–{stop}"


def bounds_of(sizes: Sequence[int]) -> list[int]:
    """Return the bounds of consecutive parts of these sizes: 0 first, their sum last."""
    return [0, *accumulate(sizes)]


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts numbers inside names by value."""
    parts = re.findall(r"\d+|\D+", name)
    numbers = [(0, int(p), "") if p.isdecimal() and len(p) < 19 else (1, 0, p) for p in parts]
    return numbers, name
