"""Training losses.

Legend: B batch, N classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment import Augmented
from seit.training.config import DistillConfig, LossConfig


def classification_loss(
    logits: Tensor, batch: Augmented, config: LossConfig, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean loss (scalar) of logits (B, N) against a batch's two weighted labels.

    ``class_weights`` (N,) multiply the terms of their classes. The mean is over samples, not over
    weights, so that it is the same however a batch is divided.

    Several labels per sample, (B, N), always take the binary cross-entropy: targets of the mixed
    labels, smoothed towards 1/2, and ``class_weights`` for the terms of present labels alone.
    """
    if batch.labels.ndim == 2:
        targets = label_set_targets(batch, config)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=class_weights)
    if config.kind == "ce":
        own, partner = (
            F.cross_entropy(
                logits,
                labels,
                weight=class_weights,
                reduction="none",
                label_smoothing=config.label_smoothing,
            )
            for labels in (batch.labels, batch.partner_labels)
        )
        return (batch.weight * own + (1 - batch.weight) * partner).mean()
    targets = soft_targets(logits, batch, config)
    return F.binary_cross_entropy_with_logits(logits, targets, weight=class_weights)


def label_set_targets(batch: Augmented, config: LossConfig) -> Tensor:
    """Return the mixed label sets of each sample (B, N) float32, smoothed: 0–1."""
    weight = batch.weight[:, None]
    mixed = weight * batch.labels + (1 - weight) * batch.partner_labels
    return mixed * (1 - config.label_smoothing) + config.label_smoothing / 2


def soft_targets(logits: Tensor, batch: Augmented, config: LossConfig) -> Tensor:
    """Return both labels of each sample as one distribution (B, N), in the dtype of ``logits``."""
    low = config.label_smoothing / logits.shape[1]
    weight = batch.weight.to(logits.dtype)[:, None] * (1 - config.label_smoothing)
    rest = 1 - config.label_smoothing - weight
    targets = torch.full_like(logits, low)
    targets.scatter_add_(1, batch.labels[:, None], weight)
    return targets.scatter_add_(1, batch.partner_labels[:, None], rest)


def distillation_loss(logits: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """Return the mean loss (scalar) of logits (B, N) against a teacher's probabilities (B, N).

    ``teacher`` is at the config's temperature. `soft` is the divergence of Hinton et al. (arXiv
    1503.02531), times the temperature squared; `hard` the cross-entropy with the teacher's top
    class of Touvron et al. (arXiv 2012.12877).
    """
    if config.kind == "hard":
        return F.cross_entropy(logits, teacher.argmax(1))
    log_probs = F.log_softmax(logits / config.temperature, dim=1)
    divergence = F.kl_div(log_probs, teacher, reduction="batchmean")
    return divergence * config.temperature**2
