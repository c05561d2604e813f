"""The tars of a store in a WebDataset pipeline: shards, then samples, are shuffled.

    python docs/examples/webdataset_pipeline.py STORE

A tar member is a column of a block, so `BlockDecoder` stands where `decode` usually does.
"""

import sys

import webdataset as wds
from torch.utils.data import DataLoader

import seit
from seit.shards import BlockDecoder, shard_urls


def main(location: str) -> None:
    """Walk through one epoch."""
    store = seit.open(location)
    pipeline = (
        wds.WebDataset(shard_urls(store["train"]), shardshuffle=100, empty_check=False, seed=0)
        .compose(BlockDecoder(store))
        .shuffle(10_000)
        .to_tuple("tokens", "label", "__key__")
        .batched(16)
    )
    num_samples = 0
    for tokens, labels, keys in DataLoader(pipeline, batch_size=None, num_workers=2):
        assert len(tokens) == len(labels) == len(keys)
        num_samples += len(keys)
    print(f"{num_samples} samples")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
