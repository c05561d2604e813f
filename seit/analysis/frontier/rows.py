"""Rows of a comparison: the bytes and accuracy of each point."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from seit.analysis.frontier.points import Family
from seit.shards import CARD_NAME, CODEBOOK_NAME, TOKENIZER_NAME, Store
from seit.training import TrainResult


@dataclass(frozen=True)
class Size:
    """Bytes of a training split.

    Attributes:
        samples: training pictures.
        bytes: all bytes to keep for them.
        fixed_bytes: part that does not grow with the number of pictures.
    """

    samples: int
    bytes: int
    fixed_bytes: int = 0


@dataclass(frozen=True)
class Row:
    """Result of a point.

    Attributes:
        name: name of the point.
        family: quantity that it varies.
        samples: training pictures of each of its runs.
        bytes: bytes of the training data; for subsets the mean over seeds.
        fixed_bytes: part that does not grow with the number of pictures: codebook, tokenizer.
        bytes_per_sample: `bytes` over `samples`.
        top1: mean over seeds, 0–1.
        top1_std: sample standard deviation over seeds; None for a single seed.
        top1_by_seed: top-1 of each run, in seed order.
        samples_per_second: mean training rate.
        psnr_db: PSNR of the network's inputs against the originals, on validation pictures; None if
            they are the same, or the pictures are those of another row.
        is_on_front: whether no other point is as accurate in fewer bytes.
    """

    name: str
    family: Family
    samples: int
    bytes: int
    fixed_bytes: int
    bytes_per_sample: float
    top1: float
    top1_std: float | None
    top1_by_seed: tuple[float, ...]
    samples_per_second: float
    psnr_db: float | None
    is_on_front: bool = False


def make_row(
    name: str,
    family: Family,
    sizes: Sequence[Size],
    results: Sequence[TrainResult],
    *,
    psnr_db: float | None,
) -> Row:
    """Return the row of a point with at least one run; sizes and results are by seed."""
    top1 = tuple(result.top1 for result in results)
    samples = round(statistics.mean(size.samples for size in sizes))
    num_bytes = statistics.mean(size.bytes for size in sizes)
    return Row(
        name=name,
        family=family,
        samples=samples,
        bytes=round(num_bytes),
        fixed_bytes=sizes[0].fixed_bytes,
        bytes_per_sample=num_bytes / samples,
        top1=statistics.mean(top1),
        top1_std=statistics.stdev(top1) if len(top1) > 1 else None,
        top1_by_seed=top1,
        samples_per_second=statistics.mean(result.samples_per_second for result in results),
        psnr_db=psnr_db,
    )


def pareto_front(rows: Sequence[Row]) -> set[str]:
    """Return the names of rows not beaten by another in bytes or top-1 at no loss in the other."""
    return {
        row.name
        for row in rows
        if not any(
            other.bytes <= row.bytes
            and other.top1 >= row.top1
            and (other.bytes, other.top1) != (row.bytes, row.top1)
            for other in rows
        )
    }


def store_size(store: Store, split: str) -> Size:
    """Measure the bytes of the samples of a split in a store.

    Its shards and index, the codebook with the codec's tables and the tokenizer count in full;
    everything else (the card and the lists of inputs) by its share of samples.
    """
    samples = store.card.samples_of(split)
    own = fixed = shared = 0
    records = [*store.card.files, *store.card.splits[split]]
    for record in records:
        if record.file in (CODEBOOK_NAME, TOKENIZER_NAME):
            fixed += record.bytes
        elif record.file.startswith(f"{split}/"):
            own += record.bytes
        elif "/" not in record.file:
            shared += record.bytes
    shared += (store.path / CARD_NAME).stat().st_size
    share = round(shared * samples / store.card.samples)
    return Size(samples, own + fixed + share, fixed)
