"""The resident loader: the whole split, packed, in memory or on the device.

ImageNet-1k is 1.6 GB at 1,024 tokens of 10 bits, so most corpora fit. A batch costs one gather of
its packed rows and a few shifts and masks, on the device; there are no worker processes.

Legend: b samples of a batch, H W grid, N samples, n of a subset, S bytes per packed sample.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import DamagedError
from seit.shards import Split, TokenLayout
from seit.shards.packed import unpack as unpack_numpy
from seit.stream.batches import IndexedLoader, Rank
from seit.stream.order import GlobalOrder, Order, StoredOrder, SubsetOrder
from seit.stream.unpack import unpack_rows

_CHECK_ROWS = 4096


class ResidentLoader(IndexedLoader):
    """Batches of ids (b, H, W) from a split held in memory; see :func:`seit.stream.loader`.

    ``subset`` int (n,) are the rows that it is of, None for all; they must be those that the split
    gives (``Split.rows``), which leaves out damaged ones where the store skips them.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: str | torch.device,
        order: Order | None = None,
        subset: npt.NDArray[np.integer] | None = None,
        rank: Rank | None = None,
    ) -> None:
        labels, packed_NS = split.labels, split.packed()
        keys = split.keys
        self._layout = split.layout
        if not len(packed_NS) == len(labels) == len(keys):
            raise DamagedError(f"{split!r} holds {len(labels)} labels and {len(keys)} keys")
        if order is None:
            count = len(labels) if subset is None else len(subset)
            order = GlobalOrder(count, seed=seed) if shuffle else StoredOrder(count)
        super().__init__(
            labels=labels,
            keys=keys,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
            order=order if subset is None else SubsetOrder(order, subset, len(labels)),
            rank=rank,
        )
        if self.device.type != "cpu":  # on a CPU ids are checked when they are unpacked
            check_ids(packed_NS, self._layout)
        self._packed_NS = torch.from_numpy(packed_NS).to(self.device)

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Ids (b, H, W) of the rows ``indices``."""
        tokens_bL = unpack_rows(
            self._packed_NS,
            indices,
            length=self._layout.length,
            num_codes=self._layout.num_codes,
        )
        return tokens_bL.view(-1, *self._layout.grid)


def check_ids(packed_NS: npt.NDArray[np.uint8], layout: TokenLayout) -> None:
    """Refuse packed samples that hold an id which is no code.

    Raises:
        DamagedError: they do.
    """
    if layout.num_codes == 1 << layout.bits:
        return
    for start in range(0, len(packed_NS), _CHECK_ROWS):
        rows = packed_NS[start : start + _CHECK_ROWS]
        unpack_numpy(rows, length=layout.length, num_codes=layout.num_codes)
