"""Teachers for distillation: finished runs on tokens or pixels.

Legend: B batch, N classes, n samples of the training split.
"""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.classes import listed, match_classes, near_names, say_near
from seit.errors import DamagedError, UsageError
from seit.shards import Store
from seit.tensors import read_tensors, write_tensors
from seit.training.config import TrainConfig
from seit.training.feeds import TrainBatch, make_augment, make_feed
from seit.training.networks import load_run_model
from seit.training.precision import make_autocast
from seit.training.ranks import Ranks
from seit.training.run import LOGITS_NAME, Run

_LOG = logging.getLogger(__name__)


class Teacher:
    """Source of class probabilities (B, N) at the config's temperature."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def probabilities(self, batch: TrainBatch) -> Tensor:
        """Return the probabilities of a training batch, float32 (B, N)."""
        raise NotImplementedError

    def _soften(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).softmax(1)


class TokenTeacher(Teacher):
    """Network that sees the student's own inputs."""

    def __init__(
        self,
        model: nn.Module,
        autocast: torch.autocast,
        temperature: float,
        columns: Tensor | None = None,
    ) -> None:
        super().__init__(temperature)
        self._columns = columns
        self._model = model.eval().requires_grad_(False)
        self._autocast = autocast

    @override
    def probabilities(self, batch: TrainBatch) -> Tensor:
        with torch.no_grad(), self._autocast:
            logits = self._model(batch.augmented.inputs)
            return self._soften(logits if self._columns is None else logits[:, self._columns])


class PixelTeacher(Teacher):
    """Precomputed logits of each whole sample, mixed as the samples of a batch are."""

    def __init__(self, logits_nN: Tensor, temperature: float) -> None:
        super().__init__(temperature)
        self._probabilities_nN = self._soften(logits_nN)

    @override
    def probabilities(self, batch: TrainBatch) -> Tensor:
        own_BN = self._probabilities_nN.index_select(0, batch.rows)
        weight_B1 = batch.augmented.weight[:, None]
        return weight_B1 * own_BN + (1 - weight_B1) * own_BN.flip(0)


def make_teacher(config: TrainConfig, store: Store, ranks: Ranks, folder: Path) -> Teacher | None:
    """Return the teacher that ``config`` names, if any.

    Classes are matched by name: the student learns the probabilities among the store's classes.

    Args:
        config: the student's settings.
        store: the student's store.
        ranks: ranks of the student's run.
        folder: the student's run folder, which caches a pixel teacher's logits.

    Raises:
        UsageError: the teacher lacks some of the store's classes, or its inputs cannot be shared.
    """
    if config.distill.teacher is None or not config.distill.alpha:
        return None
    run = Run.open(config.distill.teacher)
    columns = _columns(run, store, ranks.device)
    theirs = run.config
    if theirs.data.pixels is not None:
        logits_nN = _pixel_logits(run, config, store, ranks, folder)
        logits_nN = logits_nN if columns is None else logits_nN[:, columns]
        return PixelTeacher(logits_nN, config.distill.temperature)
    if config.data.pixels is not None:
        raise UsageError(
            f"the teacher {run.path} takes tokens and this run pixels; name one of pixels"
        )
    tokenizer = run.load_tokenizer()
    if tokenizer.fingerprint != store.card.tokenizer.fingerprint:
        raise UsageError(f"the teacher {run.path} takes another tokenizer's tokens; name another")
    augment = make_augment(store, theirs, ranks.device, with_train=False)
    own = make_augment(store, config, ranks.device, with_train=False)
    if augment.output_size != own.output_size:
        raise UsageError(
            f"the teacher {run.path} sees inputs of {augment.output_size} and this run of "
            f"{own.output_size}; set augment.crop_size to the teacher's "
            f"{theirs.augment.crop_size}"
        )
    model = load_run_model(run, augment, tokenizer, ranks.device)
    autocast = make_autocast(config, ranks.device)
    return TokenTeacher(model, autocast, config.distill.temperature, columns)


def _columns(run: Run, store: Store, device: torch.device) -> Tensor | None:
    """Return the indices of the store's classes in the teacher's logits; None for all, in order."""
    match = match_classes(store.classes, run.classes)
    if match.unknown:
        near = near_names(match.unknown, run.classes)
        raise UsageError(
            f"the teacher {run.path} does not know {len(match.unknown):,} classes of "
            f"{store.folder}: {listed(match.unknown)}"
            + (f"; {say_near(near)}" if near else "")
            + "; name a teacher of these classes"
        )
    return None if match.is_identity else torch.from_numpy(match.numbers).to(device)


def _pixel_logits(
    run: Run, config: TrainConfig, store: Store, ranks: Ranks, folder: Path
) -> Tensor:
    """Return the logits (n, N) float32 of the whole training split, computed once and cached."""
    path = folder / LOGITS_NAME
    if not path.is_file():
        if ranks.is_main:
            _LOG.info("the teacher %s predicts all training samples once", run.path)
        logits_nN = ranks.sum(_look_at_all(run, config, store, ranks))
        if ranks.is_main:
            write_tensors(path, {"logits": logits_nN})
        ranks.wait()
    try:
        logits_nN = read_tensors(path, advice="delete it to make it again")["logits"]
    except KeyError as error:
        raise DamagedError(f"{path} holds no logits; delete it to make it again") from error
    expected = (len(store[config.data.train_split]), len(run.classes))
    if tuple(logits_nN.shape) != expected:
        raise DamagedError(f"{path} holds logits {tuple(logits_nN.shape)}, not {expected}")
    return logits_nN.to(ranks.device)


@torch.no_grad()
def _look_at_all(run: Run, config: TrainConfig, store: Store, ranks: Ranks) -> Tensor:
    """Return the logits (n, N) of the rank's part of the training split; 0 for the other parts."""
    named = config.data if config.distill.pixels is None else config.distill
    if named.pixels is None:
        raise UsageError(
            f"the teacher {run.path} was trained on the pixels of {run.config.data.pixels!r}; name "
            "the images that it is to see with --distill.pixels SRC"
        )
    split = config.data.train_split
    data = replace(run.config.data, val_split=split, pixels=named.pixels, root=named.root)
    theirs = replace(run.config, data=data)
    feed = make_feed(store, theirs, ranks.device, rank=ranks.part, with_train=False)
    model = load_run_model(run, feed.augment, store.load_tokenizer(), ranks.device).eval()
    autocast = make_autocast(config, ranks.device)
    logits_nN = torch.zeros(
        len(store[config.data.train_split]), len(run.classes), device=ranks.device
    )
    assert feed.evaluation is not None
    for batch in feed.evaluation.epoch(0):
        rows = torch.from_numpy(batch.indices).to(ranks.device)
        with autocast:
            logits_BN = model(feed.augment.evaluate(batch.tokens))
        logits_nN.index_copy_(0, rows, logits_BN.float())
    return logits_nN
