"""Exact evaluation of a network or a finished run: every sample of a split once.

Legend: B batch, N classes, M classes of the evaluated store.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.classes import ClassMatch, listed, match_classes, near_names, say_near
from seit.confusion import Confusion
from seit.devices import choose_device
from seit.errors import UsageError
from seit.numbers import counted
from seit.outcomes import Outcome
from seit.shards import Store, as_store
from seit.training.answers import MOST_LIKELY, Likeliest
from seit.training.config import TrainConfig
from seit.training.feeds import make_feed
from seit.training.label_sets import LabelScores
from seit.training.networks import load_classifier
from seit.training.precision import make_autocast
from seit.training.ranks import Ranks
from seit.training.run import TOKENIZER_NAME, Run
from seit.training.speech.data import SoundData
from seit.training.views import MeanOfViews, views_of

_DEFAULT_SPLIT = "val"
MEAN_AP = "mean_average_precision"
"""Metric of several labels per sample."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracy over the labeled samples of a split.

    Attributes:
        samples: number of evaluated samples.
        top1: top-1 accuracy, 0–1.
        top5: top-5 accuracy, 0–1.
        loss: mean cross-entropy, in nats.
        predictions: int64 (samples of the split,), the class of the highest logit, in the split's
            order; −1 for an unlabeled sample.
        labels: int64 (samples of the split,), −1 for an unlabeled sample.
        likeliest: probabilities of the likeliest classes of each sample of the split.
        num_classes: N.
        seconds: duration.
        wait_seconds: the part of it spent waiting for the next batch.
        scores: probabilities and labels, if samples have several labels. A sample then counts as
            right in ``top1`` if its most probable class is one of its labels, in ``top5`` if one of
            the five is; ``loss`` is the binary cross-entropy; and ``labels`` has the predicted
            class of a sample that is right, else its first label.
    """

    samples: int
    top1: float
    top5: float
    loss: float
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    likeliest: Likeliest
    num_classes: int
    seconds: float
    wait_seconds: float
    scores: LabelScores | None = None

    @cached_property
    def confusion(self) -> Confusion:
        """Confusion of true and predicted classes."""
        return Confusion.of_labels(self.labels, self.predictions, self.num_classes)

    @property
    def mean_average_precision(self) -> float | None:
        """Mean average precision over the classes that occur, 0–1; None for one label a sample."""
        return None if self.scores is None else self.scores.mean_average_precision

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the whole split."""
        own = {"top1": self.top1, "top5": self.top5, "loss": self.loss}
        if self.scores is None:
            return own
        return {**own, MEAN_AP: self.scores.mean_average_precision}


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    device: torch.device,
    autocast: torch.autocast,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Evaluate ``model`` on inputs (B, C, h, w) and labels (B,), at least one of them not −1.

    Labels of several per sample are (B, N), 0 or 1. Skips samples labeled −1. All tensors are on
    ``device``. The model is in evaluation mode meanwhile; there is no synchronization until the
    end. With several ``ranks``, each passes its part of the split and gets the evaluation of all of
    it.
    """
    started = time.perf_counter()
    wait_seconds = 0.0
    was_training = model.training
    model.eval()
    precise = torch.float32 if device.type == "mps" else torch.float64
    totals = torch.zeros(3, dtype=precise, device=device)
    most = min(MOST_LIKELY, num_classes)
    outcomes = [torch.empty(0, 2 + most, dtype=torch.int64, device=device)]
    shares = [torch.empty(0, 1 + most, device=device)]
    scored: list[Tensor] = []
    with torch.inference_mode():
        iterator = iter(batches)
        while True:
            waited = time.perf_counter()
            batch = next(iterator, None)
            wait_seconds += time.perf_counter() - waited
            if batch is None:
                break
            inputs, labels = batch
            with autocast:
                logits = model(inputs)
            logits = logits.float()
            top = logits.topk(most, dim=1).indices
            if labels.ndim == 2:
                known, losses, hits, labels = _judge_sets(logits, top, labels, scored)
                all_shares = logits.sigmoid()
            else:
                known = labels >= 0
                target = labels.clamp(min=0)
                losses = F.cross_entropy(logits, target, reduction="none")
                hits = (top == target[:, None]).any(1)
                all_shares = logits.softmax(dim=1)
            shown = torch.cat([labels.clamp(min=0)[:, None], top], dim=1)
            totals += torch.stack([(losses * known).sum(), (hits & known).sum(), known.sum()])
            predicted = torch.where(known, top[:, 0], -1)
            outcomes.append(torch.cat([torch.stack([predicted, labels], dim=1), top], dim=1))
            shares.append(all_shares.gather(1, shown))
    model.train(was_training)
    ranks = ranks or Ranks(0, 1, device)
    has_sets = bool(scored) if ranks.world_size == 1 else ranks.any(bool(scored))
    loss, hits5, samples = ranks.sum(totals).tolist()
    outcomes_of_all = ranks.join(torch.cat(outcomes)).cpu().numpy()
    shares_of_all = ranks.join(torch.cat(shares)).cpu().numpy()
    predictions, labels_of_all = outcomes_of_all[:, 0], outcomes_of_all[:, 1]
    known_of_all = labels_of_all >= 0
    right = (predictions == labels_of_all)[predictions >= 0]
    return Evaluation(
        samples=int(samples),
        top1=int(right.sum()) / samples,
        top5=hits5 / samples,
        loss=loss / samples,
        predictions=np.ascontiguousarray(predictions),
        labels=np.ascontiguousarray(labels_of_all),
        likeliest=Likeliest(
            classes=outcomes_of_all[:, 2:].astype(np.int32),
            probabilities=np.ascontiguousarray(shares_of_all[:, 1:]),
            of_labels=np.where(known_of_all, shares_of_all[:, 0], np.nan).astype(np.float32),
        ),
        num_classes=num_classes,
        seconds=time.perf_counter() - started,
        wait_seconds=wait_seconds,
        scores=_joined(scored, ranks, num_classes) if has_sets else None,
    )


def _judge_sets(
    logits: Tensor, top: Tensor, targets: Tensor, scored: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which samples (B,) are labeled, their losses, hits of the top classes, and one label.

    Args:
        logits: (B, N).
        top: the classes of the highest logits (B, k).
        targets: (B, N), 0 or 1; −1 for an unlabeled sample.
        scored: gets the probabilities and targets (B, 2, N).
    """
    known, present = targets[:, 0] >= 0, targets > 0
    terms = F.binary_cross_entropy_with_logits(logits, present.to(logits), reduction="none")
    hits = present.gather(1, top)
    scored.append(torch.stack([logits.sigmoid(), targets], dim=1))
    first = torch.where(present.any(1), present.int().argmax(1), -1)
    labels = torch.where(hits[:, 0], top[:, 0], first)
    return known, terms.mean(1), hits.any(1), torch.where(known, labels, -1)


def _joined(scored: list[Tensor], ranks: Ranks, num_classes: int) -> LabelScores:
    """Return the scores of all ranks, of labeled samples."""
    nothing = torch.empty(0, 2, num_classes, device=ranks.device)
    pairs = ranks.join(torch.cat([nothing, *scored])).cpu().numpy()
    pairs = pairs[pairs[:, 1, 0] >= 0]
    return LabelScores(np.ascontiguousarray(pairs[:, 0]), pairs[:, 1] > 0)


@dataclass(frozen=True, repr=False)
class RunEvaluation(Outcome, Evaluation):
    """Evaluation of a finished run on a split of a store, with classes matched by name.

    Attributes:
        split: the split.
        classes: class names (N,) of the run, indexed by labels and predictions.
        unknown_classes: number of samples of each class that the run lacks, by its name.
        missing_classes: classes of the run that the store lacks.
        unknown_samples: number of skipped samples: those of one label of such a class, or of
            several labels that the run all lacks.
        views: views whose probabilities were averaged for each sample; 1 without TTA.
    """

    recorded = (
        *("top1", "top5", "loss", MEAN_AP, "split", "samples", "views"),
        *("unknown_samples", "unknown_classes", "missing_classes"),
        *("samples_per_second", "data_wait_fraction", "by_class"),
    )

    split: str
    classes: tuple[str, ...]
    unknown_classes: Mapping[str, int]
    missing_classes: tuple[str, ...]
    unknown_samples: int
    views: int = 1

    @property
    def by_class(self) -> dict[str, dict[str, float | int | None]]:
        """Figures of each class by name: precision, recall, F1, support; None if undefined.

        With several labels per sample also ``average_precision``, and the others are at a
        probability of 0.5.
        """
        found = self.confusion if self.scores is None else self.scores
        columns: dict[str, list[float | int]] = {
            "precision": found.precisions.tolist(),
            "recall": found.recalls.tolist(),
            "f1": found.f1s.tolist(),
            "support": found.support.tolist(),
        }
        if self.scores is not None:
            columns["average_precision"] = self.scores.average_precisions.tolist()
        return {
            name: {key: _defined(values[row]) for key, values in columns.items()}
            for row, name in enumerate(self.classes)
        }

    @property
    def samples_per_second(self) -> float:
        """Evaluation rate."""
        return self.samples / self.seconds

    @property
    def data_wait_fraction(self) -> float:
        """Fraction of the time spent waiting for the next batch, 0–1."""
        return self.wait_seconds / self.seconds


def evaluate_run(
    run_path: str | Path,
    store: Store | str | Path,
    *,
    split: str | None = None,
    unknown: Literal["error", "skip"] = "error",
    spelling: Literal["exact", "loose"] = "exact",
    device: str = "auto",
    pixels: str | Path | None = None,
    root: str | Path | None = None,
    tta: bool = False,
) -> RunEvaluation:
    """Evaluate a run's weights on one split of a store, every sample once.

    Classes are matched by name: the store may list them in another order, or lack some.

    Args:
        run_path: a finished run's folder.
        store: a store of the same tokenizer, opened or by path.
        split: the split; by default the run's own `data.val_split`; `val` or the only one, if the
            store lacks it.
        unknown: ``"skip"`` skips, and counts, the samples of classes that the run lacks. Of several
            labels per sample it leaves out those that the run lacks, and skips samples without
            another.
        spelling: ``"loose"`` ignores case, Unicode form, whitespace, underscores and hyphens.
        device: device of the network.
        pixels: SRC of the images, for a run trained on pixels. The SRC in the run's own settings is
            untrusted and never opened.
        root: folder that the relative paths of a table ``pixels`` start at; None for its own.
        tta: average the probabilities over crops and mirror images; see `seit.augment.GridViews`.

    Raises:
        UsageError: the store was made by another tokenizer, has no labeled samples in that split,
            or has classes that the run lacks; or the run takes pixels and ``pixels`` is None.
    """
    run = Run.open(run_path)
    config, classes = run.config, run.classes
    source = _named_pixels(run, config, pixels)
    if root is not None and source is None:
        raise UsageError("--root is for a table of images, named by --pixels; leave it out")
    store = as_store(store)
    tokenizer = run.load_tokenizer()
    if tokenizer.fingerprint != store.card.tokenizer.fingerprint:
        raise UsageError(
            f"{store.folder} was made by another tokenizer than the run {run.path} knows; tokenize "
            f"it by `seit tokenize --tokenizer {run.path / TOKENIZER_NAME}`"
        )
    split = chosen_split(store, config.data.val_split) if split is None else split
    _refuse_other_labels(run, store, split)
    match = match_classes(store.classes, classes, loose=spelling == "loose")
    left_out = unknown_classes(store, split, match)
    refuse_unknown(run, store, split, match, left_out, skips=unknown == "skip")
    base = None if root is None else str(root)
    config = replace(config, data=replace(config.data, val_split=split, pixels=source, root=base))
    target = choose_device(device)
    feed = make_feed(store, config, target, with_train=False)
    model, augment = load_classifier(run, feed.augment, tokenizer, target)
    feed = replace(feed, augment=augment)
    relabel = _Relabel(match, target, num_classes=len(classes))
    inputs_and_labels = feed.evaluation_inputs()
    views = 1
    if tta:
        assert feed.evaluation is not None, "labeled stores have an evaluated split"
        grid_views = views_of(store, augment)
        views = grid_views.num_views
        model = MeanOfViews(model, has_label_sets=run.has_label_sets)
        batches = feed.evaluation.epoch(0)
        inputs_and_labels = ((grid_views(batch.tokens), batch.labels) for batch in batches)
    evaluation = evaluate(
        model,
        ((inputs, relabel(own)) for inputs, own in inputs_and_labels),
        num_classes=len(classes),
        device=target,
        autocast=make_autocast(config, target),
    )
    figures = {one.name: getattr(evaluation, one.name) for one in fields(evaluation)}
    return RunEvaluation(
        **figures,
        split=split,
        classes=classes,
        unknown_classes=left_out,
        missing_classes=match.missing,
        unknown_samples=int(unknown_samples(store, split, match).sum()),
        views=views,
    )


class _Relabel:
    """Renumbers the labels of a store's batches as a run's, of N classes."""

    def __init__(self, match: ClassMatch, device: torch.device, *, num_classes: int) -> None:
        self._lookup = torch.from_numpy(np.append(match.numbers, -1)).to(device)
        self._num_classes = num_classes

    def __call__(self, labels: Tensor) -> Tensor:
        """Return labels (B,) → (B,), or multi-hot ones (B, M) → (B, N); −1 for skipped samples.

        Several classes of the store may be one of the run, which is present if any of them is.
        """
        if labels.ndim == 1:
            return self._lookup[labels]
        numbers = self._lookup[:-1]
        is_known = numbers >= 0
        targets = labels.new_zeros(len(labels), self._num_classes)
        columns = numbers[is_known].expand(len(labels), -1)
        targets.scatter_reduce_(1, columns, labels[:, is_known], "amax")
        skipped = (labels[:, 0] < 0) | ((labels > 0).any(1) & ~(targets > 0).any(1))
        targets[skipped] = -1
        return targets


def _refuse_other_labels(run: Run, store: Store, split: str) -> None:
    """Refuse a split of several labels per sample for a run of one, and the reverse."""
    has_sets = store[split].label_sets is not None
    if has_sets != run.has_label_sets:
        found, learned = ("several labels", "one") if has_sets else ("one label", "several")
        raise UsageError(
            f"split {split!r} of {store.folder} has {found} per sample, and the run {run.path} "
            f"learned {learned}; evaluate it on a store of its kind"
        )


def _named_pixels(run: Run, config: TrainConfig, pixels: str | Path | None) -> str | None:
    """Return the SRC named by the caller, if the run takes pixels."""
    recorded = config.data.pixels
    if recorded is not None and pixels is None:
        raise UsageError(
            f"the run {run.path} was trained on the pixels of {recorded!r}; name the images to "
            "evaluate it on by --pixels SRC"
        )
    if recorded is None and pixels is not None:
        raise UsageError(f"the run {run.path} was trained on tokens; leave --pixels out")
    return None if pixels is None else str(pixels)


def chosen_split(store: Store | SoundData, watched: str) -> str:
    """Return the split to evaluate by default: that the run ``watched``, val, or the only one."""
    if watched in store:
        return watched
    if _DEFAULT_SPLIT in store or len(store) != 1:
        return _DEFAULT_SPLIT  # a store without it raises an error that lists its splits
    return next(iter(store))


def refuse_unknown(
    run: Run,
    store: Store | SoundData,
    split: str,
    match: ClassMatch,
    left_out: Mapping[str, int],
    *,
    skips: bool,
) -> None:
    """Check that a split has labeled samples, and no others of unknown classes unless ``skips``.

    Raises:
        UsageError: it has none, or such.
    """
    if left_out and not skips:
        raise UsageError(_refusal(store, split, run, match, left_out))
    sets = store[split].label_sets
    labeled = store[split].labels >= 0 if sets is None else sets.known
    if not (labeled & ~unknown_samples(store, split, match)).any():
        raise UsageError(
            f"split {split!r} of {store.folder} holds no labeled samples to evaluate"
            + (f", but those of classes that {run.path} does not know" if left_out else "")
        )


def unknown_classes(store: Store | SoundData, split: str, match: ClassMatch) -> dict[str, int]:
    """Count the samples of each class that the run lacks, by name, in the store's order."""
    labels, sets = store[split].labels, store[split].label_sets
    counts = np.bincount(labels[labels >= 0], minlength=len(store.classes))
    if sets is not None:
        counts = sets.counts
    lacking = np.flatnonzero((match.numbers < 0) & (counts > 0))
    return {store.classes[label]: int(counts[label]) for label in lacking.tolist()}


def unknown_samples(
    store: Store | SoundData, split: str, match: ClassMatch
) -> npt.NDArray[np.bool_]:
    """Return which samples of a split have labels, all of them of classes that the run lacks."""
    labels, sets = store[split].labels, store[split].label_sets
    if sets is None:
        return np.asarray((labels >= 0) & (match.relabel(labels) < 0))
    lacking = match.numbers < 0
    return np.asarray(sets.any_of(lacking) & ~sets.any_of(~lacking))


def _refusal(
    store: Store | SoundData, split: str, run: Run, match: ClassMatch, left_out: Mapping[str, int]
) -> str:
    near, sets = near_names(left_out, run.classes), store[split].label_sets
    if sets is None:
        samples, remedy = sum(left_out.values()), "samples of unknown classes out"
    else:
        samples = int(sets.any_of(match.numbers < 0).sum())
        remedy = "such labels out, and samples without others"
    return (
        f"split {split!r} of {store.folder} holds {counted(samples, 'sample')} of "
        f"{counted(len(left_out), 'class', 'classes')} that the run {run.path} does not know: "
        f"{listed(list(left_out))}"
        + (f"; {say_near(near)}: pass --spelling loose to take such names for one" if near else "")
        + f"; pass --unknown-classes skip to leave {remedy}"
    )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
