"""Harm of each layer alone: the loss when only that layer is quantized."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
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
    """Return Spearman's rank correlation of two scores of the same layers.

    Equal scores share the mean of their ranks. None for two layers or less, and if all scores of a
    kind are equal.
    """
    if len(first) < 3:
        return None
    ranks = [_ranks([one[name] for name in first]) for one in (first, second)]
    if any(np.ptp(one) == 0 for one in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(scores: Sequence[float]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
