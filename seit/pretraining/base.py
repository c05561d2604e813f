"""Base class of pretraining objectives: views of ids, evaluation, files of a finished run.

Legend: B batch, h w token grid, K codes, C codebook dim, D model dim.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import SampleRandom, TokenAugment, center_crop, nearest_ids
from seit.errors import SeitError
from seit.models import pooled
from seit.outcomes import Outcome
from seit.pretraining.alarms import alarms_of, new_alarms
from seit.pretraining.encoder import HEADS_NAME, encoder_of, heads_of
from seit.pretraining.initialize import start_pretraining_from
from seit.pretraining.names import ObjectiveName
from seit.pretraining.patches import Reconstruction
from seit.pretraining.pictures import reconstruction_rows
from seit.pretraining.probes import Probes
from seit.pretraining.report import write_pretrain_report
from seit.report import Captioned
from seit.shards import Store
from seit.training import (
    LoopFigures,
    Objective,
    Ranks,
    Run,
    TrainBatch,
    evaluated_split,
    make_unlabelled_feed,
)

if TYPE_CHECKING:  # the settings look up facts about objectives
    from seit.pretraining.config import PretrainConfig

EVALUATION_EPOCH = 2**32 - 1
"""Epoch of the draws of evaluations, never reached by training."""
NUM_PICTURES = 6
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class PretrainResult(Outcome):
    """Result of a run; None for figures that do not apply, e.g. without labels.

    Attributes:
        loss: mean cross-entropy of masked tokens, in nats.
        token_accuracy: masked-token accuracy, 0–1.
        knn_top1: k-NN accuracy on features, 0–1.
        linear_top1: accuracy of a linear probe, 0–1.
        feature_std: spread of features, 0 (collapsed) to about 1.
        effective_rank: effective rank of the features.
        steps: steps of the whole run.
        samples_per_second: training throughput of this call, excluding evaluation.
        data_wait_fraction: share of that time spent waiting for the next batch.
        seconds: duration of this call.
        parameters: trainable parameters of the encoder.
    """

    loss: float | None
    token_accuracy: float | None
    knn_top1: float | None
    linear_top1: float | None
    feature_std: float | None
    effective_rank: float | None
    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int


class Pretraining(Objective[PretrainResult]):
    """Objective whose model has an ``encoder`` and predicts codes.

    Args:
        config: settings of the run.
        store: the store, of one level of codes.
        ranks: ranks of the run.
        init_from: finished run with the initial weights; None for random ones or if a checkpoint
            follows.
        teacher: run of the teacher, if any.

    Attributes:
        views: augmented views of each sample.
        title: name of the objective in reports.
        heads_from: objectives whose finished runs have heads that this one can load.
        teacher: objective that trains its teacher; None without one.
        revised: settings with another meaning in runs of revision 1.
        predicts_codes: whether :meth:`reconstruct` is available.
    """

    views: ClassVar[int] = 1
    title: ClassVar[str]
    heads_from: ClassVar[frozenset[str]]
    teacher: ClassVar[ObjectiveName | None] = None
    revised: ClassVar[tuple[str, ...]] = ()
    config: "PretrainConfig"
    shown: ClassVar[Mapping[str, str]] = {
        "loss": "validation loss {:.4g}",
        "token_accuracy": "masked-token accuracy {:.2%}",
        "knn_top1": "k-NN {:.2%}",
        "linear_top1": "linear probe {:.2%}",
    }
    predicts_codes = True

    def __init__(
        self,
        config: "PretrainConfig",
        store: Store,
        ranks: Ranks,
        *,
        init_from: Path | None,
        teacher: Path | None,
    ) -> None:
        feed = make_unlabelled_feed(store, config, ranks.device, rank=ranks.part, views=self.views)
        assert isinstance(feed.augment, TokenAugment)
        model = self.build(config, feed.augment)
        if init_from is not None:
            run = Run.open(init_from)
            if not start_pretraining_from(model, run, store, config, heads_from=self.heads_from):
                self.adopt(model)
        super().__init__(config, feed, ranks, self.finish(config, model, teacher, store))
        self.store = store
        self.augment = feed.augment
        self._probes = Probes(store, config, config.probe, self.augment, ranks)
        self._run: Run | None = None
        self._figures: Mapping[str, float] = {}

    @classmethod
    @abstractmethod
    def build(cls, config: "PretrainConfig", augment: TokenAugment) -> nn.Module:
        """Return the model with random weights; ``augment`` has the grid and the codebook."""

    @classmethod
    def adopt(cls, model: nn.Module) -> None:
        """Derive weights from the encoder, which another objective trained."""

    @classmethod
    def finish(
        cls, config: "PretrainConfig", model: nn.Module, teacher: Path | None, store: Store
    ) -> nn.Module:
        """Return the model to train, once ``model`` has its initial weights.

        Raises:
            UsageError: the teacher does not fit the store or the model.
        """
        del config, teacher, store
        return model

    @classmethod
    def check(cls, config: "PretrainConfig") -> None:
        """Raise UsageError if settings do not fit the objective."""

    @abstractmethod
    def reconstruct(
        self, model: nn.Module, ids_Bhw: Tensor, random: SampleRandom
    ) -> Reconstruction:
        """Mask cells of grids (B, h, w) by the samples' draws, and predict them with ``model``."""

    @override
    def begin(self, run: Run) -> None:
        self._run = run

    def ids_of(self, inputs_BChw: Tensor) -> Tensor:
        """Return the nearest codes of a view (B, C, h, w), int64 (B, h, w)."""
        return nearest_ids(inputs_BChw, self.augment.codebook)

    def random_of(self, batch: TrainBatch) -> SampleRandom:
        """Return the draws of a batch's samples."""
        return SampleRandom(self.config.run.seed, batch.epoch, batch.positions)

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            figures = {**self._evaluate_codes(model), **self._probes.measure(self._features(model))}
        model.train(was_training)
        self._figures = figures
        self._warn(figures)
        return figures

    def _features(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return a function of inputs (B, C, h, w) → classifier features, float32 (B, D)."""
        vit = encoder_of(model)

        def features(inputs_BChw: Tensor) -> Tensor:
            with self.autocast:
                return pooled(vit, inputs_BChw).float()

        return features

    def _evaluate_codes(self, model: nn.Module) -> dict[str, float]:
        """Return metrics of predicted codes over all samples of the evaluated split."""
        if self.feed.evaluation is None or not self.predicts_codes:
            return {}
        device = self.ranks.device
        totals = torch.zeros(4, dtype=torch.float64, device=device)
        counts_K = torch.zeros(len(self.augment.codebook), dtype=torch.int64, device=device)
        for batch in self.feed.evaluation.epoch(0):
            ids = self.ids_of(self.augment.evaluate(batch.tokens))
            random = SampleRandom(self.config.run.seed, EVALUATION_EPOCH, batch.positions)
            with self.autocast:
                found = self.reconstruct(model, ids, random)
            hits = (found.predicted == ids) & found.masked
            sums = [found.loss.sum(), torch.ones_like(found.loss).sum(), hits.sum()]
            totals += torch.stack([*map(Tensor.double, sums), found.masked.sum().double()])
            counts_K.index_add_(0, found.predicted.flatten(), found.masked.flatten().long())
        loss, samples, right, masked = self.ranks.sum(totals).tolist()
        return {
            "loss": loss / samples,
            "token_accuracy": right / masked,
            "code_share": float(self.ranks.sum(counts_K).max()) / masked,
        }

    def _warn(self, figures: Mapping[str, float]) -> None:
        """Log new alarms on the main rank."""
        if not self.ranks.is_main or self._run is None:
            return
        for text in new_alarms(self._run.metrics(), figures):
            _LOG.warning("%s", text)

    @override
    def result(self, figures: LoopFigures) -> PretrainResult:
        names = (
            "loss",
            "token_accuracy",
            "knn_top1",
            "linear_top1",
            "feature_std",
            "effective_rank",
        )
        measured: dict[str, Any] = {name: self._figures.get(name) for name in names}
        return PretrainResult(**measured, **asdict(figures))

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        return encoder_of(model)

    @override
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        run.save_tensors(HEADS_NAME, heads_of(model))
        return {"warnings": alarms_of(run.metrics())}

    @override
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        pictures: list[tuple[str, list[Captioned]]] | str = "the objective predicts no codes"
        if self.predicts_codes:
            try:
                pictures = self._pictures(model)
            except SeitError as error:  # the tokenizer cannot decode
                pictures = str(error)
        write_pretrain_report(run, title=self.title, info=info, pictures=pictures)

    def _pictures(self, model: nn.Module) -> list[tuple[str, list[Captioned]]]:
        """Return some samples: original, masked, and as completed by the network.

        Those of the training split if none are evaluated.
        """
        evaluated = evaluated_split(self.store, self.config)
        split = self.store[self.config.data.train_split] if evaluated is None else evaluated
        keys = split.keys
        rows = np.unique(np.linspace(0, len(split) - 1, NUM_PICTURES).astype(np.int64))
        whole_nHW = torch.from_numpy(split.tokens[rows].astype(np.int64)).to(self.ranks.device)
        H, W = whole_nHW.shape[1:]
        size = self.augment.output_size
        middle = center_crop(torch.arange(H * W, device=whole_nHW.device).view(H, W), size)
        ids = whole_nHW.flatten(1)[:, middle.flatten()].view(-1, *size)
        random = SampleRandom(
            self.config.run.seed, EVALUATION_EPOCH, torch.from_numpy(rows).to(self.ranks.device)
        )
        was_training = model.training
        model.eval()
        with torch.inference_mode(), self.autocast:
            found = self.reconstruct(model, ids, random)
        model.train(was_training)
        masked, predicted = torch.zeros_like(whole_nHW, dtype=torch.bool), whole_nHW.clone()
        masked.flatten(1)[:, middle.flatten()] = found.masked.flatten(1)
        predicted.flatten(1)[:, middle.flatten()] = found.predicted.flatten(1)
        return reconstruction_rows(
            self.store.load_tokenizer(),
            [keys[row] for row in rows.tolist()],
            original=whole_nHW.cpu().numpy(),
            masked=masked.cpu().numpy(),
            predicted=predicted.cpu().numpy(),
        )
