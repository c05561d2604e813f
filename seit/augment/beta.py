"""Symmetric Beta draws, for the weights of CutMix and Mixup.

Legend: B batch, T tries.
"""

import math

import torch
from torch import Tensor

from seit.augment.philox import Op
from seit.augment.random import SampleRandom
from seit.errors import UsageError

_NUM_TRIES = 32


def beta_weights(random: SampleRandom, *, alpha: float, op: Op = Op.CUTMIX_WEIGHT) -> Tensor:
    """Draw from the symmetric distribution Beta(alpha, alpha), once per sample.

    alpha = 1 is exactly uniform. Below 1, Jöhnk's method accepts the first of 32 pairs with
    u^(1/alpha) + v^(1/alpha) ≤ 1; at least half are accepted, so at most one sample in 2³² takes
    its last pair unaccepted. It works on logarithms, as the powers of a small alpha underflow.
    Above 1 there is a closed form, ½ + ½ · √(1 − u^(2 / (2·alpha − 1))) · cos(2πv) (Ulrich,
    "Computer generation of distributions on the m-sphere", Applied Statistics 33, 1984; Devroye,
    "Non-Uniform Random Variate Generation", 1986, section IX.3).

    Args:
        random: the samples' draws.
        alpha: above 0, finite.
        op: operation of the draws.

    Returns:
        (B,) float32, 0–1.

    Raises:
        UsageError: alpha is out of range.
    """
    if not 0 < alpha < math.inf:
        raise UsageError(
            f"alpha of the Beta distribution is {alpha}; expected above 0 and finite: use 1.0, "
            "which is uniform"
        )
    if alpha == 1:
        return random.uniform(op)
    if alpha > 1:
        return _ulrich(random, alpha, op)
    return _joehnk(random, alpha, op)


def _ulrich(random: SampleRandom, alpha: float, op: Op) -> Tensor:
    u, v = random.uniform(op, (2,)).unbind(1)
    # 1 - u is in (0, 1], so its logarithm is finite; expm1 keeps the digits of a large alpha.
    radius = (1 - u).log_().mul_(2 / (2 * alpha - 1)).expm1_().neg_().sqrt_()
    # Rounding may exceed the interval by an ulp at both ends.
    return (0.5 + 0.5 * radius * (2 * math.pi * v).cos_()).clamp_(0, 1)


def _joehnk(random: SampleRandom, alpha: float, op: Op) -> Tensor:
    # 1 - u is in (0, 1], so its logarithm is finite.
    log_x, log_y = (1 - random.uniform(op, (2, _NUM_TRIES))).log().div(alpha).unbind(1)
    accepted = torch.logaddexp(log_x, log_y) <= 0
    accepted[:, -1] = True
    chosen = accepted.to(torch.uint8).argmax(dim=1, keepdim=True)
    return torch.sigmoid(log_x.gather(1, chosen) - log_y.gather(1, chosen)).squeeze(1)
