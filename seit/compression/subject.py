"""A finished run to compress, with its network and data.

Legend: B batch, n samples, N classes, C channels, h w inputs of the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from seit.augment import PixelAugment, TokenAugment
from seit.compression.config import CompressConfig
from seit.devices import choose_device
from seit.errors import UsageError
from seit.shards import Store
from seit.stream import loader
from seit.tokenizers import Tokenizer, load_tokenizer
from seit.training import (
    EVAL_BATCH,
    TOKENIZER_NAME,
    Run,
    check_tokens,
    load_run_model,
    make_augment,
)


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
    """

    run: Run
    config: CompressConfig
    store: Store
    tokenizer: Tokenizer
    augment: TokenAugment | PixelAugment
    model: nn.Module
    device: torch.device

    @classmethod
    def open(cls, run: Run, config: CompressConfig, store: Store) -> "Subject":
        """Load a finished run for compression on a store.

        Raises:
            UsageError: the run has not finished, is no classifier over tokens, is compressed
                already, or does not fit the store.
        """
        settings = run.config
        if settings.data.pixels is not None:
            raise UsageError(
                f"the run {run.path} was trained on pixels; compress takes runs on tokens"
            )
        compression = run.compression
        if compression.quantized or compression.program:
            raise UsageError(
                f"the run {run.path} is compressed already; name the run that it was made from"
            )
        check_tokens(run, store)
        if run.classes != store.classes:
            raise UsageError(
                f"the run {run.path} knows {len(run.classes)} classes and {store.folder} holds "
                f"{len(store.classes)} others; compress it on a store of its classes"
            )
        device = choose_device(config.run.device)
        tokenizer = load_tokenizer(run.path / TOKENIZER_NAME)
        augment = make_augment(store, config, device, with_train=False)
        model = load_run_model(run, augment, tokenizer, device).eval().requires_grad_(False)
        return cls(run, config, store, tokenizer, augment, model, device)

    @cached_property
    def calibration_rows(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Rows (n,) of the training samples to calibrate with: balanced over the classes.

        Drawn by the seed. Validation data are never among them.
        """
        data, seed = self.config.data, self.config.run.seed
        labels = self.store[data.train_split].labels
        order = np.random.default_rng(seed).permutation(len(labels))
        rank = np.empty(len(labels), dtype=np.int64)  # of a sample within its class
        for label in np.unique(labels):
            own = order[labels[order] == label]
            rank[own] = np.arange(len(own))
        chosen = np.lexsort((order.argsort(), rank))[: self.config.compression.samples]
        return np.sort(chosen)

    def inputs(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Tensor]:
        """Yield inputs (B, C, h, w) of training samples, as in evaluation, in batches."""
        for ids in self.tokens(rows):
            yield self.augment.evaluate(ids)

    def tokens(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Tensor]:
        """Yield ids (B, H, W) of training samples in batches."""
        batches = loader(
            self.store[self.config.data.train_split],
            batch_size=EVAL_BATCH,
            device=self.device,
            shuffle=False,
            subset=rows,
        )
        for batch in batches.epoch(0):
            yield batch.tokens

    def with_model(self, model: nn.Module) -> "Subject":
        """Return the subject with another network."""
        return replace(self, model=model)
