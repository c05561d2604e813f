"""The tars of a store in a WebDataset pipeline: shards, then samples, are shuffled.

    python docs/examples/webdataset_pipeline.py STORE

For a `webdataset.WebDataset` of your own, pass `seit.shards.shard_urls(split)` to it and put
`.compose(seit.shards.BlockDecoder(store))` where `.decode()` usually stands.
"""

import sys

from torch.utils.data import DataLoader

import seit
from seit.shards import sample_pipeline


def main(location: str) -> None:
    """Walk through one epoch."""
    pipeline = (
        sample_pipeline(seit.open(location)["train"], shuffle_shards=100)
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
