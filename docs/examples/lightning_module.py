"""A LightningDataModule over a store, and two steps of a linear model with it.

python docs/examples/lightning_module.py STORE
"""

import sys

import lightning
import torch
from torch.utils.data import DataLoader

import seit
from seit.stream.datasets import StreamDataset


class Tokens(lightning.LightningDataModule):
    """The training split of a store, in global batches that the ranks share."""

    def __init__(self, store: seit.shards.Store) -> None:
        super().__init__()
        self.split = store["train"]

    def train_dataloader(self) -> DataLoader:
        """The rank's part of the batches, on the host."""
        ranks = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return DataLoader(
            StreamDataset(seit.loader(self.split, batch_size=16, **ranks)), batch_size=None
        )


class Linear(lightning.LightningModule):
    """A linear classifier of mean codebook vectors."""

    def __init__(self, store: seit.shards.Store) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.from_numpy(store.codebook))
        self.head = torch.nn.Linear(self.codebook.shape[1], len(store.classes))

    def training_step(self, batch: dict) -> torch.Tensor:
        """The loss of a batch."""
        logits = self.head(self.codebook[batch["tokens"].int()].mean(dim=(1, 2)))
        return torch.nn.functional.cross_entropy(logits, batch["label"], ignore_index=-1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    store = seit.open(sys.argv[1])
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_steps=2, use_distributed_sampler=False, **options)
    trainer.fit(Linear(store), Tokens(store))
    print(f"{trainer.global_step} steps")  # noqa: T201
