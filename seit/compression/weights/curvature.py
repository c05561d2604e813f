"""Curvature of a run's loss on training samples."""

import copy
from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.nn import functional as F

from seit.compression.subject import Subject
from seit.compression.weights.hessian import Traces, hessian_traces, twice_differentiable
from seit.compression.weights.network import weight_of

_SAMPLES, _BATCH = 64, 16
_MAX_PROBES = 50


def measure_traces(subject: Subject, names: Sequence[str]) -> Traces:
    """Measure the traces of the Hessian of the cross-entropy for the weights of the named layers.

    Uses 64 labeled calibration samples, a few at a time: graphs of second derivatives are large.
    """
    model = copy.deepcopy(subject.model).requires_grad_(False)
    weights = {name: weight_of(model, name).requires_grad_() for name in names}
    parts = list(_parts(subject))
    count = sum(len(labels) for _, labels in parts)

    def losses() -> Iterator[Tensor]:
        for inputs, labels in parts:
            yield F.cross_entropy(model(inputs).float(), labels, reduction="sum") / count

    with twice_differentiable():
        return hessian_traces(
            losses,
            weights,
            max_probes=_MAX_PROBES,
            seed=subject.config.run.seed,
            progress=subject.tell,
        )


def _parts(subject: Subject) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs (B, C, h, w) and labels (B,) of the samples."""
    data = subject.config.data
    rows = subject.balanced_rows[: len(subject.calibration_rows)]
    labels = subject.store[data.train_split].labels
    known = rows[labels[rows] >= 0][:_SAMPLES]
    for ids, targets in subject.labeled_tokens(known):
        inputs = subject.augment.evaluate(ids)
        yield from zip(inputs.split(_BATCH), targets.split(_BATCH), strict=True)
