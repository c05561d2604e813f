"""A LightningDataModule over a store, and two steps of a linear model with it.

python docs/examples/lightning_module.py STORE
"""

import sys

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

import seit
from seit.stream.datasets import StreamDataset


class Tokens(lightning.LightningDataModule):
    """The training split of a store; `batch_size` is that of one rank."""

    def __init__(self, location: str, *, batch_size: int) -> None:
        super().__init__()
        self.store = seit.open(location)
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        """The batches of the rank that asks; they are the same for any number of ranks."""
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        loader = seit.loader(
            self.store["train"], batch_size=self.batch_size * ranks, rank=rank, world_size=ranks
        )
        return DataLoader(StreamDataset(loader), batch_size=None)


class Linear(lightning.LightningModule):
    """A linear classifier of mean codebook vectors."""

    def __init__(self, store: seit.shards.Store) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.from_numpy(store.codebook))
        self.head = nn.Linear(self.codebook.shape[1], len(store.classes))

    def training_step(self, batch: dict) -> torch.Tensor:
        """The loss of a batch."""
        features = self.codebook[batch["tokens"].int()].mean(dim=(1, 2))
        return nn.functional.cross_entropy(self.head(features), batch["label"], ignore_index=-1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(location: str) -> None:
    """Train for two steps."""
    data = Tokens(location, batch_size=16)
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.fit(Linear(data.store), data)
    print(f"{trainer.global_step} steps of {data.batch_size} samples")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
