"""Rows of figures shared by several commands."""

from typing import TYPE_CHECKING

from seit.progress import human_rate

if TYPE_CHECKING:
    from seit.training import Evaluation, TrainResult


def accuracy_rows(
    result: "TrainResult | Evaluation", *, samples: int | None, num_classes: int
) -> list[tuple[str, str]]:
    """Return the rows of a classifier's figures, with their uncertainty on few samples.

    With few classes top-5 is meaningless and left out; ``samples`` is None if unknown.
    """
    from seit.report import FEW_SAMPLES, MANY_CLASSES, say_share

    share, note = say_share(result.top1, samples)
    is_sure = samples is None or samples >= FEW_SAMPLES
    if is_sure:
        share = f"{result.top1:.4f}"
    rows = [("top-1", f"{share} ({note})" if note else share)]
    mean = result.mean_average_precision
    if mean is not None:
        rows.insert(0, ("mAP", f"{mean:.4f}"))
    if is_sure and num_classes > MANY_CLASSES:
        rows.append(("top-5", f"{result.top5:.4f}"))
    return [*rows, ("loss", f"{result.loss:.4f}")]


def rate_row(samples_per_second: float, data_wait_fraction: float) -> tuple[str, str]:
    """Return the row of a training rate."""
    rate = human_rate(samples_per_second, "samples")
    return "rate", f"{rate}, {data_wait_fraction:.1%} of it waiting for data"
