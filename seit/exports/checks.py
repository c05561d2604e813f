"""Check that an exported file computes the same as the run's model.

Legend: B batch, N classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seit.errors import SeitError
from seit.exports.graphs import Graph, Outputs, RawClassifier

TOLERANCE = 1e-4
"""Maximum difference of logits, relative to the largest logit or to 1, whichever is larger."""
MIN_EQUAL_TOKENS = 0.999
"""Minimum share of ids equal to the tokenizer's; the others differ by rounding."""

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """Agreement of a file's outputs with the model's.

    Attributes:
        logits: largest difference.
        tokens: share of equal ids, 0–1; None if the file returns none.
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
    """Compare a file with the network that it was exported from.

    Ids are compared with the tokenizer's, and logits with those of the file's own ids, so that a
    tie between codes does not count twice.

    Args:
        graph: network.
        run: function that runs the file on a batch.
        examples: batches of different sizes.
        encode: the tokenizer's inputs → ids.
        name: name of the file, for messages.

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
    if not worst <= TOLERANCE * scale:  # also refuses NaN
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
