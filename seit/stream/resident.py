"""Load batches from a whole split, packed in memory or on the device.

ImageNet-1k is 1.6 GB at 1,024 tokens of 10 bits, so most corpora fit. A batch costs one gather of
its packed rows and a few shifts and masks, on the device; there are no worker processes.

Legend: b samples of a batch, H W grid, N samples, n samples of a subset, S bytes per packed sample.
"""

from collections.abc import Iterator
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.shards import Split, TokenLayout, unpack as unpack_numpy
from seit.stream.batches import IndexedLoader, Rank, RowBatch, check_labeled
from seit.stream.device_decoder import decode_on
from seit.stream.order import GlobalOrder, Order, StoredOrder, SubsetOrder
from seit.stream.packed import unpack_rows

_CHECK_ROWS = 4096


class ResidentLoader(IndexedLoader):
    """Batches of ids (b, H, W) from a split held in memory; see :func:`seit.stream.loader`.

    Memory is the packed tokens and 8 bytes a sample for its label. Keys stay in the store, and are
    read when a batch is asked for them, which needs the store in its place.

    ``subset`` int (n,) selects rows, None for all; they must be in ``Split.rows``, which excludes
    damaged ones if the store skips them. ``labeled`` makes a sample without a label an error.

    Context-coded tokens are decoded on the device if Triton supports it.
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
        labeled: bool = False,
    ) -> None:
        labels = split.labels
        if labeled:
            check_labeled(labels, split)
        packed_NS = decode_on(split, torch.device(device)).packed()
        self.classes = split.classes
        self.label_sets = split.label_sets
        self.store, self.sample_shape = split.store, split.grid
        self._layout = split.layout
        self._split = split
        self._rows = split.rows if split.skipped_samples else None
        if order is None:
            size = len(labels) if subset is None else len(subset)
            order = GlobalOrder(size, seed=seed) if shuffle else StoredOrder(size)
        super().__init__(
            labels=labels,
            find_keys=self._keys_of,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
            order=order if subset is None else SubsetOrder(order, subset, len(labels)),
            rank=rank,
        )
        if self.device.type != "cpu":  # on a CPU, unpacking checks ids
            check_ids(packed_NS, self._layout)
        self._packed_NS = torch.from_numpy(packed_NS).to(self.device)

    def row_steps(self, start: int = 0) -> Iterator[RowBatch]:
        """Yield the batches of :meth:`steps` as rows of the packed split."""
        for step in count(start):
            epoch, number = divmod(step, len(self))
            positions = self._positions(number)
            indices = self.order.indices(positions, epoch)
            rows = torch.from_numpy(indices).to(self.device, non_blocking=True)
            sets = self.label_sets
            labels = (
                self._labels.index_select(0, rows) if sets is None else self._targets(sets, indices)
            )
            yield RowBatch(
                packed=self._packed_NS,
                rows=rows,
                labels=labels,
                positions=torch.from_numpy(positions).to(self.device, non_blocking=True),
                epoch=epoch,
            )

    def _keys_of(self, indices: npt.NDArray[np.int64]) -> list[str]:
        return self._split.read_keys(indices if self._rows is None else self._rows[indices])

    def read(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Return ids (b, H, W) of the rows ``indices``."""
        tokens_bL = unpack_rows(
            self._packed_NS,
            indices,
            length=self._layout.length,
            num_codes=self._layout.num_codes,
        )
        return tokens_bL.view(-1, *self._layout.grid)


def check_ids(packed_NS: npt.NDArray[np.uint8], layout: TokenLayout) -> None:
    """Check that all ids of packed samples are codes.

    Raises:
        DamagedError: an id is not below K.
    """
    if layout.num_codes == 1 << layout.bits:
        return
    for start in range(0, len(packed_NS), _CHECK_ROWS):
        rows = packed_NS[start : start + _CHECK_ROWS]
        unpack_numpy(rows, length=layout.length, num_codes=layout.num_codes)
