"""A split as a torch dataset: one step of a linear model on every batch of an epoch.

    python docs/examples/torch_dataloader.py STORE

`seit.loader` yields the same samples many times as fast; this is for code that wants a Dataset.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

import seit
from seit.stream.datasets import TokenDataset


def main(location: str) -> None:
    """Train for one epoch."""
    store = seit.open(location)
    dataset = TokenDataset(store["train"], dtype=torch.int64)
    batches = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2)
    codebook = torch.from_numpy(store.codebook)
    head = nn.Linear(codebook.shape[1], len(store.classes))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for batch in batches:
        features = codebook[batch["tokens"]].mean(dim=(1, 2))
        loss = nn.functional.cross_entropy(head(features), batch["label"], ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{len(dataset)} samples in {len(batches)} batches")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
