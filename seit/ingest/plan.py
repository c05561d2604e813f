"""Assignment of inputs to shards, a pure function of the corpus listing.

A shard is a fixed range of inputs, so it can be remade independently; unreadable inputs make it
smaller and affect no other shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seit.ingest.sources import Corpus, Instance
from seit.shards import BLOCK_SAMPLES


@dataclass(frozen=True)
class ShardPlan:
    """Inputs of one shard, in writing order."""

    split: str
    index: int
    instances: tuple[Instance, ...]

    @property
    def name(self) -> str:
        """Name in messages and records, such as ``train-00003``."""
        return f"{self.split}-{self.index:05d}"


def plan_shards(corpus: Corpus, *, shard_samples: int) -> Iterator[ShardPlan]:
    """Cut each split into shards of ``shard_samples`` inputs (the last may have fewer).

    Folders and manifests list inputs in a hashed order that mixes classes over the shards; each run
    of one block is sorted by key here, which makes the keys compress well. Tars keep their order.
    """
    for split, instances in corpus.by_split().items():
        for index, start in enumerate(range(0, len(instances), shard_samples)):
            inputs = list(instances[start : start + shard_samples])
            if corpus.kind != "webdataset":
                inputs = [
                    instance
                    for offset in range(0, len(inputs), BLOCK_SAMPLES)
                    for instance in sorted(
                        inputs[offset : offset + BLOCK_SAMPLES], key=lambda entry: entry.key
                    )
                ]
            yield ShardPlan(split, index, tuple(inputs))
