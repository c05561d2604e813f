"""Facts about a store, as `seit info` prints them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seit.errors import DamagedError
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import Kind, Location, Split, Store, as_store


@dataclass(frozen=True, repr=False)
class StoreInfo(Outcome):
    """Description of a store.

    Attributes:
        samples: samples in all splits.
        bytes: bytes of all files.
        bytes_per_sample: `bytes` over `samples`.
        payload_bytes_per_sample: bytes of the blocks alone, over `samples`.
        source_bytes_per_sample: mean size of the original files.
        grid: (H, W) of one sample's tokens.
        codebook_size: number of codes K.
        codebook_dim: dimension C of a code's vector.
        tokenizer: name of the tokenizer.
        tokenizer_fingerprint: fingerprint of the tokenizer.
        quality: figures of its reconstructions, such as ``psnr_db``.
        codec: codec of the tokens.
        container: format of the shards.
        classes: class names, indexed by labels.
        splits: samples per split.
        shards: number of shards.
        skipped: number of unreadable inputs.
        class_counts: samples of each class, in the order of ``classes``, per split; None unless
            asked for. Samples without a label are missing from them.
    """

    samples: int
    bytes: int
    bytes_per_sample: float
    payload_bytes_per_sample: float
    source_bytes_per_sample: float
    grid: tuple[int, int]
    codebook_size: int
    codebook_dim: int
    tokenizer: str
    tokenizer_fingerprint: str
    quality: Mapping[str, float]
    codec: str
    container: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    shards: int
    skipped: int
    class_counts: Mapping[str, tuple[int, ...]] | None = None


def describe_store(
    store: Store | Location, *, counts: bool = False, progress: Count | None = None
) -> StoreInfo:
    """Describe a store, open or at a path or URL, from its card alone.

    Args:
        store: a path, URL or open store.
        counts: also count the samples of each class, which reads the labels, block by block.
        progress: called with (samples counted, total).

    Raises:
        UsageError: there is no store.
        DamagedError: its card, or a block of labels, is damaged.
    """
    store = as_store(store)
    card, tokenizer = store.card, store.card.tokenizer
    samples = max(card.samples, 1)
    return StoreInfo(
        samples=card.samples,
        bytes=store.num_bytes,
        bytes_per_sample=store.num_bytes / samples,
        payload_bytes_per_sample=card.payload_bytes / samples,
        source_bytes_per_sample=card.source_bytes / samples,
        grid=tokenizer.grid,
        codebook_size=tokenizer.codebook_size,
        codebook_dim=tokenizer.codebook_dim,
        tokenizer=tokenizer.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        quality=card.quality,
        codec=card.codec,
        container=card.container,
        classes=card.classes,
        splits={name: card.samples_of(name) for name in card.splits},
        shards=sum(map(len, card.splits.values())),
        skipped=card.skipped,
        class_counts=_class_counts(store, progress) if counts else None,
    )


def _class_counts(store: Store, progress: Count | None) -> dict[str, tuple[int, ...]]:
    """Count the samples of each class, in O(classes) memory."""
    done, found = 0, {}
    for name, split in store.items():
        num_samples = np.zeros(len(store.classes), dtype=np.int64)
        for labels in split.read_blocks(lambda shard, block: shard.open_block(block, Kind.LABELS)):
            _check_range(int(labels.min(initial=-1)), int(labels.max(initial=-1)), split)
            num_samples += np.bincount(labels[labels >= 0], minlength=len(num_samples))
            done += len(labels)
            if progress:
                progress(done, store.card.samples)
        found[name] = tuple(num_samples.tolist())
    return found


def _check_range(low: int, high: int, split: Split) -> None:
    if low < -1 or high >= len(split.classes):
        raise DamagedError(
            f"split {split.name!r} holds labels from {low} to {high} where the card names "
            f"{len(split.classes)} classes; `seit verify` lists all damage"
        )
