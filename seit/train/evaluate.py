"""Exact evaluation: every sample of a split once.

Legend: B batch, N classes.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.confusion import Confusion
from seit.train.ranks import Ranks


@dataclass(frozen=True)
class Evaluation:
    """Accuracy over the labelled samples of a split.

    Attributes:
        samples: how many were evaluated.
        top1: fraction whose label has the highest logit, 0–1.
        top5: fraction whose label is among the five highest, 0–1.
        loss: mean cross-entropy, in nats.
        predictions: int64 (samples of the split,), the class of the highest logit, in the split's
            order; −1 for an unlabelled sample.
        labels: int64 (samples of the split,), −1 for an unlabelled sample.
        num_classes: N.
        seconds: how long it took.
        wait_seconds: the part of it spent waiting for the next batch.
    """

    samples: int
    top1: float
    top5: float
    loss: float
    predictions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    num_classes: int
    seconds: float
    wait_seconds: float

    @cached_property
    def confusion(self) -> Confusion:
        """Which class was taken for which, how often."""
        return Confusion.of_labels(self.labels, self.predictions, self.num_classes)

    def metrics(self) -> dict[str, float]:
        """The figures, without those of single classes and samples."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.loss}


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

    Samples labelled −1 are left out. All lies on ``device``.
    The model is in evaluation mode meanwhile; nothing is synchronised until the end. Each of
    several ``ranks`` passes its own part of the split, and gets the evaluation of all of it.
    """
    started = time.perf_counter()
    wait_seconds = 0.0
    was_training = model.training
    model.eval()
    precise = torch.float32 if device.type == "mps" else torch.float64
    totals = torch.zeros(3, dtype=precise, device=device)
    outcomes = [torch.empty(0, 2, dtype=torch.int64, device=device)]
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
            known = labels >= 0
            target = labels.clamp(min=0)
            losses = F.cross_entropy(logits, target, reduction="none")
            top = logits.topk(min(5, num_classes), dim=1).indices
            hits = (top == target[:, None]).any(1)
            totals += torch.stack([(losses * known).sum(), (hits & known).sum(), known.sum()])
            outcomes.append(torch.stack([torch.where(known, top[:, 0], -1), labels], dim=1))
    model.train(was_training)
    ranks = ranks or Ranks(0, 1, device)
    loss, hits5, samples = ranks.sum(totals).tolist()
    predictions, labels_of_all = ranks.join(torch.cat(outcomes)).cpu().numpy().T
    known_of_all = labels_of_all >= 0
    return Evaluation(
        samples=int(samples),
        top1=int((predictions == labels_of_all)[known_of_all].sum()) / samples,
        top5=hits5 / samples,
        loss=loss / samples,
        predictions=np.ascontiguousarray(predictions),
        labels=np.ascontiguousarray(labels_of_all),
        num_classes=num_classes,
        seconds=time.perf_counter() - started,
        wait_seconds=wait_seconds,
    )
