"""Facts about a store: what `seit info` prints."""

from collections.abc import Mapping
from dataclasses import dataclass

from seit.outcomes import Outcome
from seit.shards import Location, Store, open_store


@dataclass(frozen=True, repr=False)
class StoreInfo(Outcome):
    """What a store holds.

    Attributes:
        samples: over all splits.
        bytes: of all files.
        bytes_per_sample: `bytes` over `samples`.
        payload_bytes_per_sample: bytes of the blocks alone, over `samples`.
        source_bytes_per_sample: mean size of the original files.
        grid: (H, W) of one sample's tokens.
        codebook_size: codes K.
        codebook_dim: values C of a code's vector.
        tokenizer: its name.
        tokenizer_fingerprint: its fingerprint.
        quality: figures of its reconstructions, such as ``psnr_db``.
        codec: what codes the tokens.
        container: what the shards are.
        classes: names; a label indexes them.
        splits: samples by split.
        shards: number of shards.
        skipped: inputs that could not be read.
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


def describe_store(store: Store | Location) -> StoreInfo:
    """Describe a store, opened or by path or URL; reads its card alone.

    Raises:
        UsageError: there is no store.
        DamagedError: its card is not what was written.
    """
    store = store if isinstance(store, Store) else open_store(store)
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
    )
