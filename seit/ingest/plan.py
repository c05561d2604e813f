"""Assignment of inputs to shards, a pure function of the corpus listing.

A shard is a fixed range of inputs, so it can be remade independently; unreadable inputs make it
smaller and affect no other shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seit.ingest.sources import Corpus, Instance
from seit.shards import BLOCK_SAMPLES


@dataclass(frozen=True)
class ShardPlan:
    """Inputs of one shard; they are made when they are read, as a corpus has many shards.

    Attributes:
        split: split of the shard.
        index: its number within the split.
        listed: its inputs, as listed.
        sorts_blocks: whether each run of one block is written in the order of its keys, which
            makes the keys compress well.
    """

    split: str
    index: int
    listed: Sequence[Instance]
    sorts_blocks: bool = False

    @property
    def name(self) -> str:
        """Name in messages and records, such as ``train-00003``."""
        return f"{self.split}-{self.index:05d}"

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self.listed)

    def inputs(self) -> list[Instance]:
        """Return the inputs in writing order."""
        inputs = list(self.listed)
        if self.sorts_blocks:
            for start in range(0, len(inputs), BLOCK_SAMPLES):
                block = slice(start, start + BLOCK_SAMPLES)
                inputs[block] = sorted(inputs[block], key=lambda entry: entry.key)
        return inputs


def plan_shards(corpus: Corpus, *, shard_samples: int) -> Iterator[ShardPlan]:
    """Cut each split into shards of ``shard_samples`` inputs (the last may have fewer).

    Folders and manifests list inputs in a hashed order that mixes classes over the shards. Tars
    keep their order.
    """
    for split, instances in corpus.by_split().items():
        for index, start in enumerate(range(0, len(instances), shard_samples)):
            listed = instances[start : start + shard_samples]
            yield ShardPlan(split, index, listed, sorts_blocks=corpus.kind != "webdataset")
