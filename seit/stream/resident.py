"""The resident loader: the whole split, packed, in memory or on the device.

ImageNet-1k is 1.6 GB at 1,024 tokens of 10 bits, so most corpora fit. A batch costs one gather of
its packed rows and a few shifts and masks, on the device; there are no worker processes.

Legend: B batch, H W grid, N samples, S bytes per packed sample.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import DamagedError
from seit.shards import Split
from seit.shards.packed import unpack as unpack_numpy
from seit.stream.batches import Loader
from seit.stream.unpack import unpack

_CHECK_ROWS = 4096


class ResidentLoader(Loader):
    """Batches of ids (B, H, W) from a split held in memory; see :func:`loader`."""

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
    ) -> None:
        super().__init__(
            labels=split.labels,
            keys=split.keys,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
        )
        packed_NS = split.packed()
        self._layout = split.layout
        if len(packed_NS) != self.num_samples:
            raise DamagedError(f"{split!r} holds {self.num_samples} labels")
        if self._layout.num_codes != 1 << self._layout.bits:
            for start in range(0, len(packed_NS), _CHECK_ROWS):
                unpack_numpy(
                    packed_NS[start : start + _CHECK_ROWS],
                    length=self._layout.length,
                    num_codes=self._layout.num_codes,
                )
        self._packed_NS = torch.from_numpy(packed_NS).to(self.device)

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Ids (B, H, W) of the rows ``indices``."""
        rows = torch.from_numpy(indices).to(self.device, non_blocking=True)
        tokens_BL = unpack(
            self._packed_NS[rows], length=self._layout.length, num_codes=self._layout.num_codes
        )
        return tokens_BL.view(-1, *self._layout.grid)


def loader(
    split: Split,
    *,
    batch_size: int,
    device: str | torch.device = "cpu",
    shuffle: bool = True,
    seed: int = 0,
) -> ResidentLoader:
    """Load ``split`` into the memory of ``device`` and yield batches of it.

    Shuffled, each epoch is a fresh permutation of all samples that depends on ``seed`` and the
    epoch alone, and the last incomplete batch is left out; otherwise samples come in their order,
    all of them.

    Raises:
        UsageError: the split is empty or smaller than a shuffled batch.
        DamagedError: a shard is damaged.
    """
    return ResidentLoader(split, batch_size=batch_size, shuffle=shuffle, seed=seed, device=device)
