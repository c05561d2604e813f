"""Rows of figures shared by several commands."""

from collections.abc import Iterator, Mapping
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
        share = f"{result.top1:.2%}"
    rows = [("top-1", f"{share} ({note})" if note else share)]
    mean = result.mean_average_precision
    if mean is not None:
        rows.insert(0, ("mAP", f"{mean:.2%}"))
    if is_sure and num_classes > MANY_CLASSES:
        rows.append(("top-5", f"{result.top5:.2%}"))
    return [*rows, ("loss", f"{result.loss:.4f}")]


def rate_row(samples_per_second: float, data_wait_fraction: float) -> tuple[str, str]:
    """Return the row of a training rate."""
    rate = human_rate(samples_per_second, "samples")
    return "rate", f"{rate}, {data_wait_fraction:.1%} of it waiting for data"


def quality_parts(quality: Mapping[str, float]) -> Iterator[str]:
    """Yield the quality of a tokenizer as its store's card has it, part by part.

    It is measured on a sample of the corpus, whose size is given with the codes: all samples of a
    store use more of them.
    """
    if "psnr_db" in quality:
        yield f"{quality['psnr_db']:.1f} dB"
    if "explained_variance" in quality:
        yield f"{quality['explained_variance']:.1%} of the layer's variance"
    if "codebook_usage" in quality:
        measured = [name for name in ("images", "windows") if name in quality]
        sample = f" by {int(quality[measured[0]]):,} {measured[0]}" if measured else ""
        yield f"{quality['codebook_usage']:.0%} of the codes used{sample}"
