"""Accuracy control of 8-bit files: layers left in float, by predictions of the files themselves."""

import numpy as np

from seit.compression.control import Controlled, keep_accuracy, most_sensitive_first
from seit.compression.int8.builder import Builder
from seit.compression.int8.check import run_file
from seit.compression.subject import Subject


def control_accuracy(subject: Subject, builder: Builder, max_drop: float) -> Controlled:
    """Leave as many layers of a file in float as it takes to keep the accuracy on the dev samples.

    Args:
        subject: the run.
        builder: maker of its files.
        max_drop: largest drop of top-1 allowed, 0–1.

    Raises:
        UsageError: the training split is too small for dev samples.
        SeitError: the runtime computes no format rightly.
    """
    batches = list(subject.labeled_tokens(subject.dev_rows))
    labels = np.concatenate([one.cpu().numpy() for _, one in batches])
    ids = np.concatenate([one.cpu().numpy() for one, _ in batches]).astype(np.int64)
    in_float = run_file(builder.graph.data, ids).argmax(1)

    def order() -> list[str]:
        layers = frozenset(builder.layers)
        return most_sensitive_first(
            {layer: _harm(builder, layers - {layer}) for layer in builder.layers}
        )

    return keep_accuracy(
        builder.layers,
        lambda left: builder.top1(batches, left),
        top1_before=float(np.mean(in_float == labels)),
        max_drop=max_drop,
        samples=len(labels),
        order=order,
        progress=subject.tell,
    )


def _harm(builder: Builder, left: frozenset[str]) -> float:
    """Return how far the logits of a file with some layers in float are from float's."""
    logits = run_file(builder.make(left).data, builder.ids)
    return float(np.linalg.norm(logits - builder.expected) / np.linalg.norm(builder.expected))
