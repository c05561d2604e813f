"""Which loader serves a split: resident where it fits, streaming where it does not."""

import os
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import UsageError
from seit.shards import Split
from seit.stream.batches import Loader, Rank
from seit.stream.order import WINDOW_BLOCKS, Order, WindowOrder
from seit.stream.resident import ResidentLoader
from seit.stream.streaming import StreamingLoader

Mode = Literal["auto", "resident", "streaming"]
OrderName = Literal["global", "window"]
_MEMORY_SHARE = 0.5
"""Of the free memory, how much a resident split may take."""


def loader(
    split: Split,
    *,
    batch_size: int,
    device: str | torch.device = "cpu",
    shuffle: bool = True,
    seed: int = 0,
    order: OrderName = "global",
    mode: Mode = "auto",
    window_blocks: int = WINDOW_BLOCKS,
    subset: npt.NDArray[np.integer] | None = None,
    rank: int = 0,
    world_size: int = 1,
    labelled: bool = False,
) -> Loader:
    """Yield batches of ``split`` on ``device``.

    Shuffled, each epoch is a fresh permutation that depends on ``seed`` and the epoch alone, and
    the last incomplete batch is left out; otherwise samples come as they are stored, all of them.
    The sequence of batches is the same in both modes, with any number of ranks.

    Args:
        split: of a store.
        batch_size: of the global batch, over all ranks.
        device: where batches are wanted.
        shuffle: whether to shuffle.
        seed: of the order.
        order: `global` permutes all samples, which takes a resident split; `window` permutes
            blocks, and then the samples of ``window_blocks`` blocks at a time.
        mode: `resident` keeps the split, packed, in memory or on the device; `streaming` two
            windows of it; `auto` is resident where that takes up to half of the free memory.
        window_blocks: see ``order``; also what `streaming` holds.
        subset: rows int (n,) of the split, such as :func:`select` gives; resident only.
        rank: of this process; see :class:`~seit.stream.batches.Rank`.
        world_size: processes that share each batch.
        labelled: whether a sample without a label is an error: of a resident split at once, of a
            streamed one when its block is read.

    Raises:
        UsageError: the split is empty or smaller than a shuffled batch, ``order`` cannot be had
            in ``mode``, the batch does not fall into parts for the ranks, or a sample has no label
            although all should have one.
        DamagedError: a shard is damaged.
    """
    if order not in ("global", "window") or mode not in ("auto", "resident", "streaming"):
        raise UsageError(
            f"order is {order!r} and mode {mode!r}; there are the orders global and window, and "
            "the modes auto, resident and streaming"
        )
    part = Rank(rank, world_size)
    resident = mode == "resident" or (mode == "auto" and _fits(split, torch.device(device)))
    if not resident:
        if subset is not None or (shuffle and order == "global"):
            raise UsageError(
                f"split {split.name!r} of {split.store.folder} is streamed, which takes the order "
                "window and all of its samples; pass order='window', or mode='resident' if there "
                "is memory"
            )
        return StreamingLoader(
            split,
            batch_size=batch_size,
            seed=seed,
            device=device,
            window_blocks=window_blocks,
            shuffle=shuffle,
            rank=part,
            labelled=labelled,
        )
    windows: Order | None = None
    if shuffle and order == "window":
        if subset is not None or split.skipped_samples:
            raise UsageError(
                "a subset, or a split with damaged blocks that are skipped, has no windows; pass "
                "order='global'"
            )
        windows = WindowOrder(split.block_sizes, seed=seed, window_blocks=window_blocks)
    return ResidentLoader(
        split,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        device=device,
        order=windows,
        subset=subset,
        rank=part,
        labelled=labelled,
    )


def _fits(split: Split, device: torch.device) -> bool:
    needed = len(split) * split.layout.sample_bytes
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return needed <= _MEMORY_SHARE * free
