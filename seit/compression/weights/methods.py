"""Methods that store weights in few bits."""

from torch import Tensor, nn
from typing_extensions import override

from seit.compression.method import Findings
from seit.compression.post_training import PostTraining
from seit.compression.subject import Subject
from seit.compression.weights.layers import quantizable
from seit.compression.weights.rounding import round_nearest
from seit.models import StoredWeights

EDGE_BITS = 8
"""Bits of the first and the last layer, which are small and sensitive."""


class FewBits(PostTraining):
    """Weights in the same number of bits, but for the first and the last layer.

    Attributes:
        bits: bits of a weight.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.summary = f"weights in {bits} bits"

    @override
    def compress(self, subject: Subject) -> tuple[StoredWeights, Findings]:
        group = subject.config.compression.group
        packed = {}
        for layer in quantizable(subject.model):
            bits = max(self.bits, EDGE_BITS) if layer.is_edge else self.bits
            packed[f"{layer.name}.weight"] = round_nearest(
                layer.module.weight.cpu(), bits=bits, group=group
            )
        return StoredWeights.of(_weights(subject.model), packed), Findings()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().cpu() for name, one in model.state_dict().items()}
