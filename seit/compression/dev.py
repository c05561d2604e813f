"""Dev slice: training samples to choose by, apart from those to calibrate with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seit.compression.subject import Subject


@dataclass(frozen=True)
class DevFigures:
    """Figures of a network on the dev slice.

    Attributes:
        top1: accuracy, 0–1.
        loss: mean cross-entropy, in nats.
    """

    top1: float
    loss: float


@dataclass(frozen=True)
class Dev:
    """Dev slice of a subject, kept as tokens.

    Attributes:
        subject: the run.
        batches: ids (B, H, W) and labels (B,).
    """

    subject: Subject
    batches: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, subject: Subject) -> "Dev":
        """Read the dev slice of a subject.

        Raises:
            UsageError: the training split is too small for one.
        """
        return cls(subject, list(subject.labeled_tokens(subject.dev_rows)))

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(len(labels) for _, labels in self.batches)

    def inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, C, h, w) and labels (B,)."""
        for ids, labels in self.batches:
            yield self.subject.augment.evaluate(ids), labels

    @torch.inference_mode()
    def figures(self, model: nn.Module) -> DevFigures:
        """Return the figures of a network in evaluation mode."""
        hits, loss = 0, 0.0
        for inputs, labels in self.inputs():
            logits = model(inputs).float()
            hits += int((logits.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        return DevFigures(top1=hits / self.samples, loss=loss / self.samples)
