"""The plan of a job: which inputs make which shard. A pure function of the corpus listing.

A shard is a fixed range of inputs, so that it can be made, lost and made again on its own; inputs
that turn out unreadable make it smaller and touch no other shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seit.ingest.sources import Corpus, Instance
from seit.shards import BLOCK_SAMPLES


@dataclass(frozen=True)
class ShardPlan:
    """The inputs of one shard, in the order in which they are written."""

    split: str
    index: int
    instances: tuple[Instance, ...]

    @property
    def name(self) -> str:
        """A name for messages and records, e.g. ``train-00003``."""
        return f"{self.split}-{self.index:05d}"


def plan_shards(corpus: Corpus, *, shard_samples: int) -> Iterator[ShardPlan]:
    """Cut each split into shards of ``shard_samples`` inputs (the last may have fewer).

    Inputs of folders and manifests come in a hashed order that mixes classes over the shards;
    here each run of a block's length is sorted by key, which makes the keys compress well. Tars
    keep their own order.
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
