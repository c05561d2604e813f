"""Choose the loader of a split: resident if it fits in memory, streaming otherwise."""

import os

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import UsageError
from seit.memory import available_bytes
from seit.shards import Split
from seit.stream.balance import BalancedOrder
from seit.stream.balanced_windows import BalancedWindowOrder
from seit.stream.batches import Loader, Rank, check_labeled
from seit.stream.order import WINDOW_BLOCKS, Mode, Order, OrderName, Sampling, WindowOrder
from seit.stream.resident import ResidentLoader
from seit.stream.windows import StreamingLoader

_MEMORY_SHARE = 0.5
"""Share of the available memory that the resident splits of a machine may take."""
_COLUMN_BYTES = 8


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
    labeled: bool = False,
    sampling: Sampling = "natural",
) -> Loader:
    """Yield batches of ``split`` on ``device``.

    If shuffled, each epoch is a new permutation that depends on ``seed`` and the epoch alone, and
    the last incomplete batch is dropped; otherwise all samples come in stored order. Batches are
    the same in both modes, with any number of ranks.

    Args:
        split: split of a store.
        batch_size: size of the global batch, over all ranks.
        device: device of the batches.
        shuffle: True to shuffle.
        seed: seed of the order.
        order: `global` permutes all samples, which requires a resident split; `window` permutes
            blocks, and then the samples of ``window_blocks`` blocks at a time.
        mode: `resident` keeps the split, packed, in memory or on the device; `streaming` two
            windows of it; `auto` is resident if tokens, labels and order, of all processes of the
            machine, take up to half of the available memory. Each process decides for itself; runs
            of `seit` agree first.
        window_blocks: see ``order``; also the window of `streaming`. Another number than the
            default is refused for the shuffled order `global`, which has no windows.
        subset: rows int (n,) of the split, for example from :func:`select`; resident only.
        rank: rank of this process; see :class:`~seit.stream.batches.Rank`.
        world_size: processes that share each batch.
        labeled: makes a sample without a label an error: at once in a resident split, when its
            block is read in a streamed one.
        sampling: `natural` draws every sample once per epoch; `balanced` needs ``shuffle`` and
            draws every class as often in each epoch of n draws; see
            :class:`~seit.stream.balance.BalancedOrder`, and for the order `window`
            :class:`~seit.stream.balanced_windows.BalancedWindowOrder`. Reads all labels first.

    Raises:
        UsageError: the split is empty or smaller than a shuffled batch, ``mode`` does not support
            ``order``, the batch cannot be split over the ranks, a sample has no label although
            ``labeled``, a name is unknown, or ``sampling`` or ``window_blocks`` would be ignored.
        DamagedError: a shard is damaged.
    """
    if order not in ("global", "window") or mode not in ("auto", "resident", "streaming"):
        raise UsageError(
            f"order is {order!r} and mode {mode!r}; the orders are global and window, and "
            "the modes auto, resident and streaming"
        )
    _check_sampling(sampling, order, window_blocks, shuffle=shuffle)
    part = Rank(rank, world_size)
    balances = sampling == "balanced"
    resident = mode == "resident" or (
        mode == "auto"
        and fits_in_memory(split, torch.device(device), subset=subset, part=part, balances=balances)
    )
    windowed = shuffle and order == "window"
    if not resident and (subset is not None or (shuffle and order == "global")):
        raise UsageError(
            f"split {split.name!r} of {split.store.folder} is streamed, which needs the order "
            "window and all of its samples; set the order (data.order) to window, or the mode "
            "(data.mode) to resident if there is memory"
        )
    if windowed and (resident or balances) and (subset is not None or split.skipped_samples):
        raise UsageError(
            "a subset, or a split with damaged blocks that are skipped, has no windows; set the "
            "order (data.order) to global"
        )
    labels = _balanced_labels(split, subset) if balances else None
    if not resident or windowed:
        windows = _windows(split, labels, seed, window_blocks, shuffles=shuffle)
    if not resident:
        return StreamingLoader(
            split,
            batch_size=batch_size,
            seed=seed,
            device=device,
            window_blocks=window_blocks,
            shuffle=shuffle,
            rank=part,
            order=windows,
            labeled=labeled,
        )
    chosen: Order | None = None if labels is None else BalancedOrder(labels, seed=seed)
    return ResidentLoader(
        split,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        device=device,
        order=windows if windowed else chosen,
        subset=subset,
        rank=part,
        labeled=labeled,
    )


def _check_sampling(sampling: str, order: OrderName, window_blocks: int, *, shuffle: bool) -> None:
    """Raise a `UsageError` for an unknown sampling, and for settings that would be ignored."""
    if sampling not in ("natural", "balanced"):
        raise UsageError(
            f"sampling is {sampling!r}; expected natural or balanced: correct its spelling"
        )
    if sampling == "balanced" and not shuffle:
        raise UsageError(
            "sampling is 'balanced' and shuffle False; the stored order has every sample once: "
            "leave one of them out"
        )
    if shuffle and order == "global" and window_blocks != WINDOW_BLOCKS:
        raise UsageError(
            f"window_blocks is {window_blocks} and order 'global', which has no windows; set the "
            "order (data.order) to window, or leave window_blocks (data.window_blocks) out"
        )


def _windows(
    split: Split,
    labels: npt.NDArray[np.int64] | None,
    seed: int,
    window_blocks: int,
    *,
    shuffles: bool,
) -> WindowOrder:
    """Return the order of a split by windows, balanced if ``labels`` are given."""
    sizes = split.block_sizes
    if labels is None:
        return WindowOrder(sizes, seed=seed, window_blocks=window_blocks, shuffles=shuffles)
    return BalancedWindowOrder(labels, sizes, seed=seed, window_blocks=window_blocks)


def _balanced_labels(split: Split, subset: npt.NDArray[np.integer] | None) -> npt.NDArray[np.int64]:
    """Return the labels to balance.

    Raises:
        UsageError: a sample has none, or samples have several.
    """
    if split.label_sets is not None:
        raise UsageError(
            f"split {split.name!r} of {split.store.folder} has several labels per sample, which no "
            "order balances; set the sampling (data.sampling) to natural, or weight the loss by "
            "class"
        )
    labels = split.labels if subset is None else split.labels[subset]
    check_labeled(labels, split)
    return labels


def fits_in_memory(
    split: Split,
    device: torch.device,
    *,
    subset: npt.NDArray[np.integer] | None,
    part: Rank,
    balances: bool,
) -> bool:
    """Return whether the split may be resident, counting all that grows with its samples.

    Each process of a machine holds its own copy, on the host until it is on the device. Several
    processes must agree before any of them loads the split: it takes memory from what the others
    find.

    Args:
        split: split of a store.
        device: device of the batches.
        subset: rows int (n,), or None for all.
        part: the process's part of each batch.
        balances: whether classes are balanced.
    """
    size = len(split) if subset is None else len(subset)
    columns = len(split) * (1 + split.store.skips_damage)  # labels, and the rows without damage
    columns += 0 if subset is None else size
    columns += 2 * size if balances else 0  # rows by class, and those of an epoch
    num_bytes = len(split) * split.layout.sample_bytes + columns * _COLUMN_BYTES
    if split.has_label_sets:
        num_bytes += len(split) * (1 + -(-len(split.classes) // 8))
    if device.type == "cuda" and num_bytes > _MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return False
    free = available_bytes()
    return free is None or _local_processes(part) * num_bytes <= _MEMORY_SHARE * free


def _local_processes(part: Rank) -> int:
    """Return the processes on this machine that hold the split; all of them without torchrun."""
    given = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(int(given), part.world_size) if given.isdigit() else part.world_size
