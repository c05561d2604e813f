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
        samples: pictures that are trained on.
        bytes: all that has to be kept for them.
        fixed_bytes: the part of it that more pictures would not add to.
    """

    samples: int
    bytes: int
    fixed_bytes: int = 0


@dataclass(frozen=True)
class Row:
    """A point's result.

    Attributes:
        name: the point.
        family: what it varies.
        samples: pictures that each of its runs is trained on.
        bytes: bytes of the training data; of subsets the mean over seeds.
        fixed_bytes: the part of it that more pictures would not add to: codebook, tokenizer.
        bytes_per_sample: `bytes` over `samples`.
        top1: mean over seeds, 0–1.
        top1_std: sample standard deviation over seeds; None of a single one.
        top1_by_seed: of each run, in the order of seeds.
        samples_per_second: mean training rate.
        psnr_db: of what the network sees against the originals, on validation pictures; None
            where they are the same, or one row's pictures are those of another.
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
    """The row of a point with at least one run; sizes and results go by seed."""
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
    """Names of the rows that no other beats in bytes or top-1 without losing in the other."""
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
    """Measure what the samples of a split take in a store.

    Its shards and its index count, the codebook with the codec's tables and the tokenizer in full,
    and the share of its samples in everything else: the card and the lists of inputs.
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
