"""Supervised classification, as run by `seit train`.

Legend: B batch, N classes, P parts of the loss.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import Augmented
from seit.classes import split_warning
from seit.documents import as_record
from seit.errors import UsageError
from seit.outcomes import Outcome
from seit.progress import Progress
from seit.report import Section
from seit.shards import Store, as_store
from seit.training.answers import confusion_record, write_predictions
from seit.training.class_weights import class_weights, record_weights
from seit.training.config import TrainConfig
from seit.training.evaluate import Evaluation, evaluate
from seit.training.feeds import Feed, TrainBatch, make_feed, training_rows
from seit.training.initialize import start_from, starting_from
from seit.training.launch import has_checkpoint, run_objective
from seit.training.losses import classification_loss, distillation_loss
from seit.training.networks import build_model
from seit.training.objective import LoopFigures, Objective, Result
from seit.training.pretrained import (
    pretrained_sections,
    record_pretrained,
    start_from_pretrained,
)
from seit.training.ranks import Ranks
from seit.training.report import write_run_report
from seit.training.run import LABEL_SETS, PREDICTIONS_NAME, REPORT_NAME, RUN_NAME, WEIGHTS_NAME, Run
from seit.training.speech.data import SoundData
from seit.training.teacher import Teacher, make_teacher

_LOG = logging.getLogger(__name__)
_ABSURD = 10
"""Multiple of the loss of random guessing above which the result gets a warning."""
CLASSIFIER_FILES = (WEIGHTS_NAME, PREDICTIONS_NAME, REPORT_NAME)
"""Files of a finished run, apart from `run.json`."""


@dataclass(frozen=True, repr=False)
class TrainResult(Outcome):
    """Result of a training run.

    Attributes:
        top1: accuracy of the evaluated weights on the validation split, 0–1.
        top5: top-5 accuracy, 0–1.
        loss: mean cross-entropy on that split, in nats.
        steps: steps of the whole run.
        samples_per_second: training rate of this call, without evaluation.
        data_wait_fraction: fraction of that time spent waiting for the next augmented batch.
        seconds: duration of this call.
        parameters: trainable parameters.
        val_samples: labeled samples evaluated; None in older runs.
        mean_average_precision: mean over the classes of several labels per sample, 0–1; None for
            one label.
    """

    top1: float
    top5: float
    loss: float
    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int
    val_samples: int | None = None
    mean_average_precision: float | None = None


def train(
    config: TrainConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a classifier on ``store`` and write a run folder to ``out``.

    Args:
        config: settings.
        store: an open store or its path.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: continue an interrupted run, if there is one; the result is bit for bit that of an
            uninterrupted run on the same CPU with as many ranks. A finished run is left unchanged
            and its result returned, unless ``config`` has a longer schedule.
        init_from: a finished run to take initial weights from, instead of ``config.init_from``. The
            head is initialized from scratch if that run is a pretraining run or has other classes.
        progress: called after each step, on the main rank.

    Raises:
        UsageError: settings, store and folder do not fit together; nothing was changed.
        SeitError: the loss is no longer finite, or a file cannot be written.
        KeyboardInterrupt: at SIGINT or SIGTERM, after the current step and a checkpoint.
    """
    opened = as_store(store)
    settled = starting_from(config, init_from)
    if settled.layer is not None and settled.init_from is None:
        raise UsageError(f"layer is {settled.layer}, which needs --init-from, the run that has it")
    is_new = not has_checkpoint(Path(out), resume=resume)
    return run_objective(
        lambda ranks, start: Classification(
            settled, opened, ranks, init_from=start, from_file=is_new
        ),
        settled,
        opened,
        out=Path(out),
        resume=resume,
        files=CLASSIFIER_FILES,
        teacher=teacher_of(settled),
        recorded=lambda figures: as_record(figures, TrainResult, origin=f"the result in {out}"),
        progress=progress,
    )


class Classifying(Objective[Result]):
    """Objective of a classifier over a store's classes, on tokens or pixels."""

    config: TrainConfig
    shown: ClassVar[Mapping[str, str]] = {"loss": "validation loss {:.4g}", "top1": "top-1 {:.2%}"}

    def __init__(
        self,
        config: TrainConfig,
        store: Any,
        ranks: Ranks,
        *,
        init_from: str | Path | None,
        from_file: bool = False,
    ) -> None:
        feed, model = self.build(config, store, ranks)
        if ranks.is_main:
            _warn_of_classes(config, store)
        if init_from is not None:
            start_from(model, Run.open(init_from), store, config, layer=config.layer)
        self._pretrained = start_from_pretrained(model, config) if from_file else None
        super().__init__(config, feed, ranks, model)
        self.store = store  # a store, or other data with the same splits and classes
        weights = class_weights(
            config.loss.class_weights,
            store[config.data.train_split],
            rows=training_rows(store[config.data.train_split], config),
        )
        self._class_weights = None if weights is None else weights.to(ranks.device)
        self._check_labels()
        self._teacher: Teacher | None = None
        self._evaluation: Evaluation | None = None

    def _check_labels(self) -> None:
        """Refuse splits that differ in whether samples have several labels, and teachers of such.

        Raises:
            UsageError: they do, or there is a teacher.
        """
        assert self.feed.train is not None, "a feed to train on"
        assert self.feed.evaluation is not None, "labeled stores have an evaluated split"
        self.has_label_sets = self.feed.train.label_sets is not None
        if self.has_label_sets != (self.feed.evaluation.label_sets is not None):
            raise UsageError(
                f"the splits of {self.store.folder} differ in whether samples have several labels; "
                "give both splits the column labels, or both the column label"
            )
        if self.has_label_sets and teacher_of(self.taught()) is not None:
            raise UsageError(
                f"{self.store.folder} has several labels per sample, which no teacher serves; "
                "leave distill.teacher out"
            )

    def build(self, config: TrainConfig, store: Any, ranks: Ranks) -> tuple[Feed, nn.Module]:
        """Return the batches of both splits and the network for them."""
        feed = make_feed(store, config, ranks.device, rank=ranks.part)
        model = build_model(
            config.model,
            feed.augment,
            num_classes=len(store.classes),
            patch_size=pixels_per_token(store),
        )
        return feed, model

    @override
    def begin(self, run: Run) -> None:
        if self._pretrained is not None and self.ranks.is_main:
            record_pretrained(run, self._pretrained)
        if self._class_weights is not None and self.ranks.is_main:
            record_weights(run, self.feed.classes, self._class_weights)
        self._teacher = make_teacher(self.taught(), self.store, self.ranks, run.path)

    def taught(self) -> TrainConfig:
        """Return the settings that name the teacher."""
        return self.config

    @property
    def evaluation(self) -> Evaluation:
        """Latest evaluation."""
        assert self._evaluation is not None, "before the first evaluation"
        return self._evaluation

    @override
    def prepare(self, batch: TrainBatch, step: int) -> Tensor | None:
        return self._teacher.probabilities(batch) if self._teacher else None

    @override
    def loss(
        self, network: nn.Module, batch: TrainBatch, prepared: Tensor | None, rows: slice
    ) -> Tensor:
        augmented = Augmented(*(value[rows] for value in batch.augmented))
        with self.autocast:
            logits_BN = network(augmented.inputs)
        logits_BN = logits_BN.float()
        loss = classification_loss(logits_BN, augmented, self.config.loss, self._class_weights)
        if prepared is not None:
            alpha = self.config.distill.alpha
            taught = distillation_loss(logits_BN, prepared[rows], self.config.distill)
            loss = (1 - alpha) * loss + alpha * taught
        return loss[None]

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self._evaluation = evaluate(
            model,
            self.feed.evaluation_inputs(),
            num_classes=len(self.feed.classes),
            device=self.ranks.device,
            autocast=self.autocast,
            ranks=self.ranks,
        )
        return self._evaluation.metrics()

    def figures(self, figures: LoopFigures) -> dict[str, Any]:
        """Return the fields of a `TrainResult`."""
        val_samples = self.evaluation.samples
        return {**self.evaluation.metrics(), **asdict(figures), "val_samples": val_samples}

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        return model

    @override
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        labels = self.store[self.config.data.val_split].labels
        found = self.evaluation
        if self.has_label_sets:
            labels = found.labels
        write_predictions(run, found.predictions, labels, found.likeliest)
        warnings = self._warnings(self.evaluation.loss)
        for text in warnings:
            _LOG.warning("%s", text)
        several = {LABEL_SETS: True} if self.has_label_sets else {}
        return {**confusion_record(self.evaluation.confusion), **several, "warnings": warnings}

    def _warnings(self, loss: float) -> list[str]:
        """Return reasons to distrust the result, one line each."""
        num_outcomes = 2 if self.has_label_sets else max(2, len(self.feed.classes))
        guessing = math.log(num_outcomes)
        if loss <= _ABSURD * guessing:
            return []
        return [
            f"the validation loss is {loss:.3g}, and that of guessing {guessing:.3g}: the training "
            "diverged; lower optim.lr or set optim.clip_grad"
        ]

    @override
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        pretrained = pretrained_sections(info, where=str(run.path / RUN_NAME))
        sections = [*self.sections(), *pretrained]
        write_run_report(
            run, info=info, store=self.store, sections=sections, scores=self.evaluation.scores
        )

    def sections(self) -> Sequence[Section]:
        """Return the report sections that follow the result."""
        return ()


class Classification(Classifying[TrainResult]):
    """Classification with all weights trained."""

    @override
    def result(self, figures: LoopFigures) -> TrainResult:
        return TrainResult(**self.figures(figures))


def _warn_of_classes(config: TrainConfig, store: Store | SoundData) -> None:
    """Warn about evaluated classes that have no training sample."""
    data = config.data
    learned, evaluated = (_labels_of(store[name]) for name in (data.train_split, data.val_split))
    text = split_warning(
        store.classes,
        learned=learned,
        evaluated=evaluated,
        train=data.train_split,
        val=data.val_split,
    )
    if text is not None:
        _LOG.warning("%s", text)


def _labels_of(split: Any) -> list[int]:
    """Return the classes with samples in a split, ascending."""
    sets = split.label_sets
    found: list[int] = (
        np.unique(split.labels) if sets is None else np.flatnonzero(sets.counts)
    ).tolist()
    return found


def teacher_of(config: TrainConfig) -> Path | None:
    """Return the folder of the teacher's run, if there is one."""
    distill = config.distill
    return Path(distill.teacher) if distill.teacher is not None and distill.alpha else None


def pixels_per_token(store: Store) -> int:
    """Return the pixels per token along a side; 1 if the tokens are not those of images."""
    rows = store.card.tokenizer.grid[0] // store.levels
    return (store.card.tokenizer.image_size or rows) // rows
