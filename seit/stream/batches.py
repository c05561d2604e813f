"""What a loader yields, and how it walks through an epoch.

Legend: B batch, H W token grid or image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import UsageError
from seit.stream.order import sample_at


@dataclass(frozen=True)
class Batch:
    """A batch on the loader's device.

    Attributes:
        tokens: ids (B, H, W), int16 (int32 where K > 32,768); uint8 (B, 3, H, W) of a pixel source.
        labels: int64 (B,), −1 for an unlabelled sample.
        positions: int64 (B,), each sample's global position in the epoch's order.
        epoch: the epoch that the batch belongs to.
        indices: int64 (B,) on the host, the samples' rows in the split.
        all_keys: the keys of the split that ``indices`` points into.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    epoch: int
    indices: npt.NDArray[np.int64]
    all_keys: Sequence[str]

    @property
    def keys(self) -> list[str]:
        """The samples' keys, looked up when asked for."""
        return [self.all_keys[index] for index in self.indices.tolist()]

    def __len__(self) -> int:
        return len(self.indices)


class Loader(ABC):
    """Batches of one split, in an order that depends on (seed, epoch) alone.

    Shuffled epochs drop the last incomplete batch; ordered ones keep it. Iterating yields one
    epoch and the next iteration the next one; :meth:`steps` yields batches without an end.

    Raises:
        UsageError: the split is empty, or smaller than one shuffled batch.
    """

    def __init__(
        self,
        *,
        labels: npt.NDArray[np.int64],
        keys: Sequence[str],
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; at least 1 is needed")
        if not len(labels):
            raise UsageError("the split is empty; choose another one")
        if shuffle and batch_size > len(labels):
            raise UsageError(
                f"a batch of {batch_size} is larger than the {len(labels)} samples of the split; "
                f"pass --batch-size {len(labels)} or less"
            )
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.device = torch.device(device)
        self.next_epoch = 0
        self._all_keys = keys
        self._labels = torch.from_numpy(labels).to(self.device)

    @property
    def num_samples(self) -> int:
        """Samples of the split."""
        return len(self._labels)

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole if self.shuffle or not rest else whole + 1

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.next_epoch
        self.next_epoch += 1
        return self.epoch(epoch)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch number ``start`` on."""
        for number in range(start, len(self)):
            yield self._batch(epoch, number)

    def steps(self, start: int = 0) -> Iterator[Batch]:
        """Batches from step ``start`` on, epoch after epoch, without an end."""
        for step in count(start):
            epoch, number = divmod(step, len(self))
            yield self._batch(epoch, number)

    @abstractmethod
    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """The tokens (or pixels) of the rows ``indices``, on the device."""

    def _batch(self, epoch: int, number: int) -> Batch:
        start = number * self.batch_size
        positions = np.arange(start, min(start + self.batch_size, self.num_samples))
        indices = (
            sample_at(positions, self.num_samples, seed=self.seed, epoch=epoch)
            if self.shuffle
            else positions
        )
        rows = torch.from_numpy(indices).to(self.device, non_blocking=True)
        return Batch(
            tokens=self.read(indices),
            labels=self._labels[rows],
            positions=torch.from_numpy(positions).to(self.device, non_blocking=True),
            epoch=epoch,
            indices=indices,
            all_keys=self._all_keys,
        )
