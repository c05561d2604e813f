"""Check that a written file computes what the run's own model does.

Legend: B batch, N classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seit.errors import SeitError
from seit.exports.graphs import Graph, Outputs, RawClassifier

TOLERANCE = 1e-4
"""Largest difference of logits, in units of the largest logit, or of 1 where that is smaller."""
MIN_EQUAL_TOKENS = 0.999
"""Share of ids that are the tokenizer's own; others are as near up to rounding."""

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """Distance of a file's outputs from the model's.

    Attributes:
        logits: largest difference.
        tokens: share of ids that are equal, 0–1; None where the file gives none.
    """

    logits: float
    tokens: float | None = None


@torch.inference_mode()
def compare(
    graph: Graph,
    run: Callable[[Tensor], Outputs],
    examples: Sequence[Tensor],
    *,
    encode: Encode,
    name: str,
) -> Agreement:
    """Compare a file with the network that it was made of.

    Ids are compared with the tokenizer's own, and logits with those of the file's ids, so that a
    tie between codes does not count twice.

    Args:
        graph: the network.
        run: what the file computes of a batch.
        examples: batches, of different sizes.
        encode: the tokenizer's own inputs → ids.
        name: of the file, for messages.

    Raises:
        SeitError: they differ by more than rounding.
    """
    worst, scale = 0.0, 1.0
    equal: list[Tensor] = []
    for batch in examples:
        outputs = run(batch)
        if isinstance(graph, RawClassifier):
            tokens = outputs[1]
            equal.append((tokens == encode(batch)).flatten())
            (expected,) = graph.classifier(tokens)
        else:
            (expected,) = graph(batch)
        if outputs[0].shape != expected.shape:
            raise SeitError(
                f"{name} gives logits {tuple(outputs[0].shape)} where the model gives "
                f"{tuple(expected.shape)}; it was not kept"
            )
        worst = max(worst, float((outputs[0] - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    share = float(torch.cat(equal).double().mean()) if equal else None
    if not worst <= TOLERANCE * scale:  # NaN is refused too
        raise SeitError(
            f"{name} gives logits that are {worst:.2g} off the model's; at most "
            f"{TOLERANCE * scale:.2g} is rounding: it was not kept"
        )
    if share is not None and share < MIN_EQUAL_TOKENS:
        raise SeitError(
            f"{name} gives {share:.2%} of the tokenizer's tokens; expected at least "
            f"{MIN_EQUAL_TOKENS:.1%}: it was not kept"
        )
    return Agreement(worst, share)
