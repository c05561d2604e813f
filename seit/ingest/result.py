"""Result of a tokenize job."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from seit.ingest.store_remarks import larger_remark
from seit.outcomes import Outcome
from seit.shards import Store


@dataclass(frozen=True, repr=False)
class TokenizeResult(Outcome):
    """Outcome of a tokenize job.

    Attributes:
        samples: instances in the store.
        skipped: unreadable inputs, listed in `skipped.jsonl`.
        bytes: bytes of all files of the store.
        bytes_per_sample: `bytes` over `samples`.
        payload_bytes_per_sample: bytes of the shards alone over `samples`.
        source_bytes_per_sample: mean size of the original files.
        samples_per_second: rate of this call, including decoding; 0 if nothing was left to do.
        splits: samples per split.
        classes: number of classes.
        quality: quality of the tokenizer on held-out images of the corpus.
        warnings: one line each.
        remarks: remark on what was dropped or assumed → inputs, if this call made the store.
    """

    samples: int
    skipped: int
    bytes: int
    bytes_per_sample: float
    payload_bytes_per_sample: float
    source_bytes_per_sample: float
    samples_per_second: float
    splits: dict[str, int]
    classes: int
    quality: dict[str, float]
    warnings: tuple[str, ...] = field(default=())
    remarks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class PartResult(Outcome):
    """Outcome of a part of a job in pieces, while other parts are left.

    Attributes:
        pieces: pieces of this part, all of which are done.
        samples: samples that this call made.
        skipped: unreadable inputs of this part.
        left: pieces of other parts without a record.
    """

    pieces: int
    samples: int
    skipped: int
    left: int


def result_of(
    store: Store,
    samples_per_second: float,
    warnings: tuple[str, ...],
    *,
    remarks: Mapping[str, int] | None = None,
) -> TokenizeResult:
    """Return the result of a job from its finished store."""
    card = store.card
    return TokenizeResult(
        samples=card.samples,
        skipped=card.skipped,
        bytes=store.num_bytes,
        bytes_per_sample=store.num_bytes / card.samples,
        payload_bytes_per_sample=card.payload_bytes / card.samples,
        source_bytes_per_sample=card.source_bytes / card.samples,
        samples_per_second=samples_per_second,
        splits={split: card.samples_of(split) for split in card.splits},
        classes=len(card.classes),
        quality=dict(card.quality),
        warnings=(*warnings, *_size_remarks(store)),
        remarks=dict(remarks or {}),
    )


def _size_remarks(store: Store) -> tuple[str, ...]:
    card = store.card
    remark = larger_remark(
        num_bytes=store.num_bytes,
        token_bytes=card.payload_bytes,
        source_bytes=card.source_bytes,
        tokenizer=card.tokenizer.name,
        size=card.tokenizer.image_size,
    )
    return () if remark is None else (remark,)
