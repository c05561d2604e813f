"""Feeds: training and evaluation batches for the loop, of tokens or pixels.

Legend: B batch, C channels, h w inputs of the network.
"""

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.augment import Augmented, FusedAugment, PixelAugment, TokenAugment
from seit.devices import triton_serves
from seit.errors import UsageError
from seit.lookahead import read_ahead
from seit.models import load_tokenadapt
from seit.shards import Kind, Split, Store
from seit.stream import (
    Loader,
    Mode,
    PixelLoader,
    Rank,
    ResidentLoader,
    check_labeled,
    fits_in_memory,
    loader,
    select,
    share_of,
)
from seit.training.config import LoopConfig, require_defaults
from seit.training.precision import compute_dtype
from seit.training.ranks import Ranks

_LOG = logging.getLogger(__name__)
SECOND_VIEW = 1 << 63
"""Offset added to the seed, which is smaller, for the draws of a second view."""
EVAL_BATCH = 256


class TrainBatch(NamedTuple):
    """Training batch with the positions of its samples.

    Attributes:
        positions: (B,) int64, each sample's global position in the epoch's order.
        rows: (B,) int64, the samples' rows in the split.
        second: an independently drawn view of the same samples, if two are requested.
    """

    augmented: Augmented
    positions: Tensor
    epoch: int
    rows: Tensor
    second: Augmented | None = None


@dataclass(frozen=True)
class Feed:
    """Loaders of both splits and the augmentation that turns their batches into inputs.

    Attributes:
        train: the shuffled training batches; None for evaluation only.
        evaluation: the batches of the evaluated split, each sample once; None if an unlabeled
            store has no such split.
        augment: batches → inputs (B, C, h, w).
        classes: class names.
        seed: seed of the augmentation.
        views: views of each training sample, 1 or 2.
    """

    train: Loader | None
    evaluation: Loader | None
    augment: TokenAugment | PixelAugment
    classes: tuple[str, ...]
    seed: int
    views: int = 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of an input of the network."""
        return (self.augment.channels, *self.augment.output_size)

    @property
    def _seeds(self) -> tuple[int, ...]:
        """Seed of each view."""
        return (self.seed, self.seed + SECOND_VIEW)[: self.views]

    def train_batches(self, start: int) -> Generator[TrainBatch]:
        """Yield augmented batches from step ``start`` on, endlessly; two views if ``views`` is 2.

        On a CPU the next batch is prefetched; close the iterator before using the loader otherwise.
        If loader and augmentation both support it, rows of the resident split are passed on and ids
        are unpacked inside the augmentation's kernels.
        """
        assert self.train is not None, "this feed only evaluates"
        if isinstance(self.train, ResidentLoader) and isinstance(self.augment, FusedAugment):
            return _augment_rows(self.train, self.augment, start, self._seeds)
        batches = _augment_ids(self.train, self.augment, start, self._seeds)
        return read_ahead(batches) if self.train.device.type == "cpu" else batches

    def evaluation_inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, C, h, w) and labels (B,) of each sample of the evaluated split, once."""
        assert self.evaluation is not None, "this feed only trains"
        for batch in self.evaluation.epoch(0):
            yield self.augment.evaluate(batch.tokens), batch.labels


def _augment_ids(
    loader: Loader, augment: TokenAugment | PixelAugment, start: int, seeds: tuple[int, ...]
) -> Generator[TrainBatch]:
    for batch in loader.steps(start):
        views = [
            augment(
                batch.tokens, batch.labels, positions=batch.positions, seed=seed, epoch=batch.epoch
            )
            for seed in seeds
        ]
        rows = torch.from_numpy(batch.indices).to(loader.device, non_blocking=True)
        yield TrainBatch(views[0], batch.positions, batch.epoch, rows, *views[1:])


def _augment_rows(
    loader: ResidentLoader, augment: FusedAugment, start: int, seeds: tuple[int, ...]
) -> Generator[TrainBatch]:
    for batch in loader.row_steps(start):
        views = [
            augment.augment_rows(
                batch.packed,
                batch.rows,
                batch.labels,
                positions=batch.positions,
                seed=seed,
                epoch=batch.epoch,
            )
            for seed in seeds
        ]
        yield TrainBatch(views[0], batch.positions, batch.epoch, batch.rows, *views[1:])


def make_augment(
    store: Store, config: LoopConfig, device: torch.device, *, with_train: bool = True
) -> TokenAugment | PixelAugment:
    """Return a run's augmentation on its device, with TokenAdapt's network for training only.

    On CUDA devices that Triton supports it is the fused one: its inputs are channels-last, as the
    stem's convolution prefers, in the convolution's dtype. Otherwise it is the reference.
    """
    if config.data.pixels is not None:
        size = store.card.tokenizer.require_image_size()
        settings = replace(config.augment, crop_size=0)
        return PixelAugment((size, size), settings).to(device)
    if config.augment.flip_prob and not store.card.tokenizer.flip_equivariant:
        raise UsageError(
            f"augment.flip_prob is {config.augment.flip_prob}, but grids of the tokenizer "
            f"{store.card.tokenizer.name!r} do not mirror as images do; set it to 0"
        )
    if config.augment.jitter:
        raise UsageError(
            f"augment.jitter is {config.augment.jitter}, which changes pixels; set it to 0, or "
            "train on pixels with data.pixels"
        )
    reason = "tokens are mirrored by augment.flip_prob"
    require_defaults(config, "augment.pixel_flip_prob", reason=reason)
    codebook = torch.from_numpy(store.codebook)
    grid, settings = store.card.tokenizer.grid, config.augment
    warper = None
    if with_train and settings.token_adapt:
        warper = load_tokenadapt(settings.token_adapt, store)
    if not triton_serves(device):
        return TokenAugment(codebook, grid, settings, warper=warper).to(device)
    dtype = compute_dtype(config, device)
    if dtype == torch.float16:  # loss scaling covers gradients, not inputs
        dtype = torch.float32
    return FusedAugment(
        codebook, grid, settings, warper=warper, dtype=dtype, channels_last=True
    ).to(device)


def make_feed(
    store: Store,
    config: LoopConfig,
    device: torch.device,
    *,
    rank: Rank | None = None,
    with_train: bool = True,
) -> Feed:
    """Load the splits that ``config`` names, to train and evaluate a classifier.

    Labels are checked as they are read: here if resident, block by block in training if streamed.

    Raises:
        UsageError: the training split is missing, too small or not fully labeled, or the evaluated
            split has no labels.
    """
    data = config.data
    train = None
    if with_train:
        split = store[data.train_split]
        if not store.classes:
            raise UsageError(
                f"{store.folder} has no classes; tokenize a class-per-folder tree or a manifest "
                "with labels to train a classifier"
            )
        train = _load_train(split, config, device, rank, labeled=True)
    if data.val_split not in store or not has_labels(store[data.val_split]):
        others = [name for name in store if name != data.train_split and has_labels(store[name])]
        named = f"set data.val_split to {' or '.join(others)}, or " if others else ""
        raise UsageError(
            f"{store.folder} has no labeled samples in a split {data.val_split!r} to evaluate on; "
            f"{named}tokenize again with a val/ folder, or by `seit tokenize --val-fraction`"
        )
    evaluation = _load_evaluation(store[data.val_split], config, device, rank)
    augment = make_augment(store, config, device, with_train=with_train)
    return Feed(train, evaluation, augment, store.classes, config.run.seed)


def make_unlabelled_feed(
    store: Store, config: LoopConfig, device: torch.device, *, rank: Rank, views: int
) -> Feed:
    """Load the splits that ``config`` names, to learn without labels.

    The evaluated split may be missing or empty.

    Raises:
        UsageError: the training split is missing or too small.
    """
    data = config.data
    train = _load_train(store[data.train_split], config, device, rank, labeled=False)
    evaluated = evaluated_split(store, config)
    evaluation = None if evaluated is None else _load_evaluation(evaluated, config, device, rank)
    augment = make_augment(store, config, device)
    return Feed(train, evaluation, augment, store.classes, config.run.seed, views)


def evaluated_split(store: Store, config: LoopConfig) -> Split | None:
    """Return the evaluated split of a run without labels; None if it is missing or empty."""
    name = config.data.val_split
    return store[name] if name in store and len(store[name]) else None


class Clips(Protocol):
    """Split of sounds."""

    @property
    def labels(self) -> npt.NDArray[np.integer]:
        """Labels (N,), −1 for an unlabeled clip."""
        ...

    @property
    def files(self) -> npt.NDArray[np.integer]:
        """Numbers (N,), equal for the clips of a file."""
        ...


def training_rows(split: Split | Clips, config: LoopConfig) -> npt.NDArray[np.int64] | None:
    """Return the rows of the training split that ``data.fraction`` keeps; None for all."""
    fraction, seed = config.data.fraction, config.run.seed
    if fraction == 1:
        return None
    if isinstance(split, Split):
        return select(split, fraction=fraction, seed=seed)
    rows = np.arange(len(split.labels))
    return share_of(split.labels, rows, files=split.files, fraction=fraction, seed=seed)


def _load_train(
    split: Split, config: LoopConfig, device: torch.device, rank: Rank | None, *, labeled: bool
) -> Loader:
    size = config.data.batch_size
    return _load(split, config, device, rank, batch_size=size, shuffle=True, labeled=labeled)


def _load_evaluation(
    split: Split, config: LoopConfig, device: torch.device, rank: Rank | None
) -> Loader:
    return _load(split, config, device, rank, batch_size=EVAL_BATCH, shuffle=False, labeled=False)


def has_labels(split: Split) -> bool:
    """Return whether any sample has a label; read blocks until one has."""
    sets = split.label_sets
    if sets is not None:
        return bool(sets.known.any())
    blocks = split.read_blocks(lambda shard, block: shard.open_block(block, Kind.LABELS))
    return any((labels >= 0).any() for labels in blocks)


def _load(
    split: Split,
    config: LoopConfig,
    device: torch.device,
    rank: Rank | None,
    *,
    batch_size: int,
    shuffle: bool,
    labeled: bool,
) -> Loader:
    data, seed, rank = config.data, config.run.seed, rank or Rank()
    if data.sampling == "balanced" and shuffle and (data.pixels is not None or not labeled):
        raise UsageError(
            "data.sampling is 'balanced', which takes labeled tokens; set it to natural"
        )
    if data.pixels is not None and shuffle:
        reason = "pixels are drawn from all of the split"
        require_defaults(config, "data.order", "data.window_blocks", reason=reason)
        reason = "pixels are mirrored by augment.pixel_flip_prob"
        require_defaults(config, "augment.flip_prob", reason=reason)
        reason = "random crops of pixels are resized to the whole picture"
        require_defaults(config, "augment.crop_size", reason=reason)
    if rank.rank == 0:
        what = "tokens" if data.pixels is None else "pixels"
        _LOG.info("reading the %s of %s, %s samples", what, split.name, f"{len(split):,}")
    subset = training_rows(split, config) if shuffle else None
    if data.pixels is None:
        balances = shuffle and data.sampling == "balanced"
        mode = _agreed_mode(split, data.mode, device, rank, subset=subset, balances=balances)
        return loader(
            split,
            batch_size=batch_size,
            device=device,
            shuffle=shuffle,
            seed=seed,
            order=data.order,
            mode=mode,
            window_blocks=data.window_blocks,
            subset=subset,
            labeled=labeled,
            sampling="balanced" if balances else "natural",
            rank=rank.rank,
            world_size=rank.world_size,
        )
    if labeled:
        check_labeled(split.labels, split)
    return PixelLoader(
        split,
        data.pixels,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        device=device,
        resident={"auto": None, "resident": True, "streaming": False}[data.mode],
        subset=subset,
        rank=rank,
        root=data.root,
    )


def _agreed_mode(
    split: Split,
    mode: Mode,
    device: torch.device,
    rank: Rank,
    *,
    subset: npt.NDArray[np.integer] | None,
    balances: bool,
) -> Mode:
    """Return the mode of a split on all ranks: resident if it fits on every one of them.

    They compare between the loading of one split and that of the next.
    """
    if mode != "auto" or rank.world_size == 1:
        return mode
    ranks = Ranks(rank.rank, rank.world_size, device)
    ranks.wait()
    fits = fits_in_memory(split, device, subset=subset, part=rank, balances=balances)
    return "streaming" if ranks.any(not fits) else "resident"
