"""A split as a torch dataset, with any sampler, collate function and workers.

    python docs/examples/torch_dataloader.py STORE

`seit.loader` yields the same samples many times as fast; this is for code that wants a Dataset.
"""

import sys

import torch
from torch.utils.data import DataLoader

import seit
from seit.stream.datasets import TokenDataset


def main(location: str) -> None:
    """Average the codebook vectors of every sample, batch by batch."""
    store = seit.open(location)
    dataset = TokenDataset(store["train"], dtype=torch.int64)
    batches = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2)
    codebook = torch.from_numpy(store.codebook)
    sums = torch.zeros(len(store.classes), codebook.shape[1])
    for batch in batches:
        labeled = batch["label"] >= 0
        features = codebook[batch["tokens"]].mean(dim=(1, 2))
        sums.index_add_(0, batch["label"][labeled], features[labeled])
    print(f"{len(dataset)} samples in {len(batches)} batches")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
