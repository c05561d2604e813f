"""i-Blurry: an online stream in which some classes occur in one task and others in all.

Koh et al., "Online Continual Learning on Class Incremental Blurry Task Configuration with Anytime
Inference" (ICLR 2022, arXiv 2110.10031, section 3).

Legend: C classes, T tasks.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seit.continual_learning.streams.tasks import (
    Rows,
    Stream,
    Task,
    bounds_of,
    check_labels,
    in_order_of_arrival,
    span_name,
)
from seit.errors import UsageError
from seit.stream import sample_at

_CLASS_STREAM = 0x626C757272
_ROUNDING = 1e-9
"""Tolerance of products: 0.1 of 30 samples are 3, up to floating-point error."""


def blurry(
    labels: npt.NDArray[np.integer],
    val_labels: npt.NDArray[np.integer],
    *,
    num_classes: int,
    num_tasks: int,
    disjoint_share: float = 0.5,
    blur_share: float = 0.1,
    order: Sequence[int] | None = None,
    seed: int,
) -> Stream:
    """Return an i-Blurry-N-M stream: a share N of the classes occurs in one task, others in all.

    Every class has one task of its own, which evaluates it. A share M of the samples of a blurry
    class, drawn at random, is spread evenly over the other tasks. Tasks have equally many classes
    of their own, up to a remainder; rows arrive in random order.

    A task's ``classes`` are those first seen in it: early tasks already contain most blurry
    classes.

    Args:
        labels: int of the training split; unlabeled samples (−1) belong to no task.
        val_labels: int of the evaluated split.
        num_classes: C.
        num_tasks: T, at least 2.
        disjoint_share: N, 0–1, rounded to whole classes.
        blur_share: M, 0 to below 1, rounded to whole samples of each class.
        order: every class once, the first N·C being disjoint; None to draw one from ``seed``.
        seed: seed of all draws.

    Raises:
        UsageError: there are fewer classes than tasks, a share is out of range, or a class has no
            sample.
    """
    check_labels(labels, val_labels, num_classes=num_classes)
    if not 2 <= num_tasks <= num_classes:
        raise UsageError(f"num_tasks is {num_tasks}; expected 2 to {num_classes}, one per class")
    if not 0 <= disjoint_share <= 1 or not 0 <= blur_share < 1:
        raise UsageError(
            f"disjoint_share is {disjoint_share} and blur_share {blur_share}; expected 0 to 1, and "
            "0 to below 1"
        )
    drawn = sample_at(np.arange(num_classes), num_classes, seed=seed ^ _CLASS_STREAM, epoch=0)
    chosen = drawn.tolist() if order is None else list(order)
    num_disjoint = round(disjoint_share * num_classes)
    own = _own_classes(chosen, num_disjoint, num_tasks)
    is_blurry = set(chosen[num_disjoint:])
    parts: list[list[Rows]] = [[] for _ in range(num_tasks)]
    by_class = np.argsort(labels, kind="stable")
    ordered = labels[by_class]
    for index, classes in enumerate(own):
        others = [task for task in range(num_tasks) if task != index]
        num_sent = 0
        for label in classes:
            rows = by_class[slice(*np.searchsorted(ordered, [label, label + 1]))]
            share = blur_share if label in is_blurry else 0.0
            sent = int(len(rows) * share + 0.5 + _ROUNDING)
            rows = rows[
                sample_at(
                    np.arange(len(rows)), len(rows), seed=seed ^ _CLASS_STREAM, epoch=label + 1
                )
            ]
            parts[index].append(rows[sent:])
            # The next class continues where this one stopped, so that tasks stay balanced.
            to = (np.arange(sent) + num_sent) % len(others)
            for place, task in enumerate(others):
                parts[task].append(rows[:sent][to == place])
            num_sent += sent
    return _arrange(labels, val_labels, own=own, parts=parts, seed=seed)


def _own_classes(chosen: Sequence[int], num_disjoint: int, num_tasks: int) -> list[list[int]]:
    """Return the classes of each task: disjoint ones first, then blurry ones."""
    disjoint = bounds_of(_even(num_disjoint, num_tasks))
    # One kind fills up the remainder of the other, so that sizes differ by at most one.
    sizes = _even(len(chosen), num_tasks)
    blurred = bounds_of([size - (disjoint[t + 1] - disjoint[t]) for t, size in enumerate(sizes)])
    rest = chosen[num_disjoint:]
    return [
        [*chosen[disjoint[t] : disjoint[t + 1]], *rest[blurred[t] : blurred[t + 1]]]
        for t in range(num_tasks)
    ]


def _even(total: int, num_parts: int) -> list[int]:
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]


def _arrange(
    labels: npt.NDArray[np.integer],
    val_labels: npt.NDArray[np.integer],
    *,
    own: Sequence[Sequence[int]],
    parts: Sequence[Sequence[Rows]],
    seed: int,
) -> Stream:
    class_order = [label for classes in own for label in classes]
    bounds = bounds_of([len(classes) for classes in own])
    met: set[int] = set()
    tasks = []
    for index, classes in enumerate(own):
        rows = np.sort(np.concatenate(parts[index]))
        if not len(rows):
            raise UsageError(
                f"no sample is left for task {index + 1} of {len(own)}; lower num_tasks or "
                "blur_share"
            )
        new = set(np.unique(labels[rows]).tolist()) - met
        met |= new
        tasks.append(
            Task(
                index=index,
                classes=tuple(label for label in class_order if label in new),
                rows=in_order_of_arrival(rows, seed=seed, index=index),
                val_rows=np.flatnonzero(np.isin(val_labels, classes)),
                val_classes=tuple(classes),
                name=span_name(bounds[index], bounds[index + 1]),
            )
        )
    return Stream(
        kind="blurry",
        tasks=tuple(tasks),
        class_order=tuple(class_order),
        num_classes=len(class_order),
    )
