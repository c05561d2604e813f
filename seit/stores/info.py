"""Facts about a store, as `seit info` prints them."""

from collections.abc import Mapping
from dataclasses import dataclass

from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import Location, Store, as_store
from seit.stores.counts import count_classes


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
        counts: also count the samples of each class, which reads the labels, block by block, the
            first time.
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
        class_counts=count_classes(store, progress) if counts else None,
    )
