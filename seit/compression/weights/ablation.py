"""Harm of each layer alone: the loss when only that layer is quantized."""

import copy
from collections.abc import Mapping

import numpy as np
from torch import nn

from seit.compression.dev import Dev
from seit.compression.weights.network import weight_of
from seit.packed_weights import PackedWeight


def ablate(dev: Dev, model: nn.Module, packed: Mapping[str, PackedWeight]) -> dict[str, float]:
    """Return the rise of the dev loss when only one layer is quantized, in nats, by its name.

    Args:
        dev: dev slice.
        model: the float network, which is not changed.
        packed: quantized weights, by the layer's name.
    """
    changed = copy.deepcopy(model)
    before = dev.figures(changed).loss
    rises = {}
    for done, (name, one) in enumerate(packed.items()):
        dev.subject.tell(done, len(packed))
        weight = weight_of(changed, name)
        kept = weight.detach().clone()
        weight.data.copy_(one.dense())
        rises[name] = dev.figures(changed).loss - before
        weight.data.copy_(kept)
    return rises


def rank_correlation(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Spearman's rank correlation of two scores of the same layers; None for two or less."""
    if len(first) < 3:
        return None
    ranks = [np.argsort(np.argsort([one[name] for name in first])) for one in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
