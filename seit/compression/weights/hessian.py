"""Traces of the loss's Hessian for each layer's weight, by Hutchinson's estimate.

Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", arXiv
1911.03852: Tr(H) is the mean of vᵀ H v over random v of ±1; H v is the gradient of gᵀ v.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from seit.progress import Count

MIN_PROBES = 10
SETTLED = 0.01
"""Largest relative change of a mean trace by one more probe at which the estimate ends."""


@dataclass(frozen=True)
class Traces:
    """Estimated traces.

    Attributes:
        mean: mean trace Tr(H) / n of each weight of n values, by name.
        probes: random vectors that were used.
    """

    mean: Mapping[str, float]
    probes: int


def hessian_traces(
    losses: Callable[[], Iterable[Tensor]],
    weights: Mapping[str, Tensor],
    *,
    max_probes: int,
    seed: int,
    progress: Count | None = None,
) -> Traces:
    """Estimate the traces of a loss's Hessian with respect to each weight.

    Args:
        losses: yields the parts of the loss, to be summed, of a network in evaluation mode; called
            once a probe. Attention needs :func:`twice_differentiable` around it.
        weights: leaves of the network that require gradients, by name.
        max_probes: most random vectors.
        seed: seed of the random vectors.
        progress: called after each probe.
    """
    leaves = list(weights.values())
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(leaves), dtype=torch.float64)
    probes = 0
    while probes < max_probes:
        signs = [_signs(leaf, generator) for leaf in leaves]
        found = torch.zeros_like(total)
        for loss in losses():
            found += _products(loss, leaves, signs)
        before, total = total / max(1, probes), total + found
        probes += 1
        if progress is not None:
            progress(probes, max_probes)
        if probes >= MIN_PROBES and _has_settled(before, total / probes):
            break
    means = total / probes / torch.tensor([leaf.numel() for leaf in leaves])
    return Traces(dict(zip(weights, means.tolist(), strict=True)), probes)


def twice_differentiable() -> AbstractContextManager[None]:
    """Return the context in which attention has second derivatives."""
    return sdpa_kernel(SDPBackend.MATH)


def _products(loss: Tensor, leaves: Sequence[Tensor], signs: Sequence[Tensor]) -> Tensor:
    """Return vᵀ H v of each leaf, float64 on the host, with v the leaf's part of all signs.

    Products with other leaves' parts have a mean of 0.
    """
    gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    along = sum((one * sign).sum() for one, sign in zip(gradients, signs, strict=True))
    assert isinstance(along, Tensor)
    if not along.requires_grad:
        return torch.zeros(len(leaves), dtype=torch.float64)
    curved = torch.autograd.grad(along, leaves, materialize_grads=True)
    sums = [(one * sign).sum() for one, sign in zip(curved, signs, strict=True)]
    return torch.stack(sums).detach().cpu().double()


def _signs(leaf: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(2, leaf.shape, generator=generator, dtype=torch.int8)
    return (drawn * 2 - 1).to(leaf)


def _has_settled(before: Tensor, after: Tensor) -> bool:
    return bool(((after - before).abs() <= SETTLED * after.abs()).all())
