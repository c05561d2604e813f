"""A finished run to compress, with its network and data.

Legend: B batch, n samples, N classes, C channels, h w inputs of the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from seit.augment import PixelAugment, TokenAugment, crop_size_of
from seit.compression.config import CompressConfig
from seit.devices import choose_device
from seit.errors import UsageError
from seit.progress import Progress
from seit.shards import Store
from seit.stream import Batch, loader
from seit.tokenizers import Tokenizer
from seit.training import (
    EVAL_BATCH,
    Run,
    check_tokens,
    load_run_model,
    make_augment,
    training_rows,
)

Rows = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Rows (n,) of samples of a split."""


@dataclass(frozen=True)
class Subject:
    """A finished run to compress.

    Attributes:
        run: the run.
        config: settings of the compression, with the run's backbone and crop.
        store: the store to calibrate and evaluate on.
        tokenizer: the tokenizer of the run.
        augment: ids → inputs (B, C, h, w) of the network, as in evaluation.
        model: its network in evaluation mode, float32.
        device: device of the network.
        progress: called with (steps done, total, latest figures).
    """

    run: Run
    config: CompressConfig
    store: Store
    tokenizer: Tokenizer
    augment: TokenAugment | PixelAugment
    model: nn.Module
    device: torch.device
    progress: Progress | None = None

    @classmethod
    def open(
        cls, run: Run, config: CompressConfig, store: Store, *, progress: Progress | None = None
    ) -> "Subject":
        """Load a finished run for compression on a store.

        Raises:
            UsageError: the run has not finished, is no classifier over tokens, is compressed
                already, or does not fit the store; or the settings crop otherwise than the run.
        """
        check_source(run, store)
        _check_crop(run, config, store)
        device = choose_device(config.run.device)
        tokenizer = run.load_tokenizer()
        augment = make_augment(store, config, device, with_train=False)
        model = load_run_model(run, augment, tokenizer, device).eval().requires_grad_(False)
        return cls(run, config, store, tokenizer, augment, model, device, progress)

    @cached_property
    def calibration_rows(self) -> Rows:
        """Rows (n,) of the training samples to calibrate with: balanced over the classes.

        Drawn by the seed, at most half of those that `data.fraction` keeps. Validation data are
        never among them.
        """
        return np.sort(self.balanced_rows[: self._num_calibration])

    @cached_property
    def dev_rows(self) -> Rows:
        """Rows (n,) of other, labeled training samples to choose by: balanced over the classes.

        Raises:
            UsageError: there are none.
        """
        data, first = self.config.data, self._num_calibration
        others = self.balanced_rows[first:]
        known = others[self.store[data.train_split].labels[others] >= 0]
        if not len(known):
            raise UsageError(
                f"the split {data.train_split!r} of {self.store.folder} has no labeled sample to "
                "choose by, apart from those to calibrate with; lower compression.samples"
            )
        return np.sort(known[: self.config.compression.dev_samples])

    @cached_property
    def balanced_rows(self) -> Rows:
        """Rows (n,) of the training samples in use: any first part of them is balanced."""
        split = self.store[self.config.data.train_split]
        order = np.random.default_rng(self.config.run.seed).permutation(len(split))
        rows = training_rows(split, self.config)
        order = order if rows is None else order[np.isin(order, rows)]
        labels = split.labels[order]
        rank = np.empty(len(order), dtype=np.int64)  # of a sample within its class
        for label in np.unique(labels):
            own = np.flatnonzero(labels == label)
            rank[own] = np.arange(len(own))
        return order[rank.argsort(kind="stable")]

    @property
    def _num_calibration(self) -> int:
        return min(self.config.compression.samples, (len(self.balanced_rows) + 1) // 2)

    def inputs(self, rows: Rows) -> Iterator[Tensor]:
        """Yield inputs (B, C, h, w) of training samples, as in evaluation, in batches."""
        for ids in self.tokens(rows):
            yield self.augment.evaluate(ids)

    def labeled_tokens(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ids (B, H, W) and labels (B,) of training samples in batches."""
        for batch in self._batches(rows):
            yield batch.tokens, batch.labels

    def tokens(self, rows: Rows) -> Iterator[Tensor]:
        """Yield ids (B, H, W) of training samples in batches."""
        for batch in self._batches(rows):
            yield batch.tokens

    def labeled_inputs(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, C, h, w) and labels (B,) of training samples, as in evaluation."""
        for batch in self._batches(rows):
            yield self.augment.evaluate(batch.tokens), batch.labels

    def _batches(self, rows: Rows) -> Iterator[Batch]:
        batches = loader(
            self.store[self.config.data.train_split],
            batch_size=EVAL_BATCH,
            device=self.device,
            shuffle=False,
            subset=rows,
        )
        yield from batches.epoch(0)

    def tell(self, done: int, total: int, **figures: float) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, total, figures)

    def with_model(self, model: nn.Module) -> "Subject":
        """Return the subject with another network."""
        return replace(self, model=model)


def check_source(run: Run, store: Store) -> None:
    """Check that a run can be compressed on a store.

    Raises:
        UsageError: the run has not finished, is no classifier over tokens, is compressed already,
            or does not fit the store.
    """
    if run.config.data.pixels is not None:
        raise UsageError(f"the run {run.path} was trained on pixels; compress takes runs on tokens")
    if not run.compression.is_plain:
        raise UsageError(
            f"the run {run.path} is compressed already; name the run that it was made from"
        )
    check_tokens(run, store)
    if run.classes != store.classes:
        raise UsageError(
            f"the run {run.path} knows {len(run.classes)} classes and {store.folder} holds "
            f"{len(store.classes)} others; compress it on a store of its classes"
        )


def _check_crop(run: Run, config: CompressConfig, store: Store) -> None:
    """Check that a run and what is made of it see the same part of a grid.

    Raises:
        UsageError: they do not.
    """
    rows, columns = store.card.tokenizer.grid
    own, theirs = config.augment.crop_size, run.config.augment.crop_size
    sizes = [crop_size_of((rows // store.levels, columns), one) for one in (own, theirs)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"augment.crop_size is {own}, and the run {run.path} has {theirs}, with which both are "
            "compared; leave it out"
        )
