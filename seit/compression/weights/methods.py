"""Methods that store weights in few bits."""

from typing_extensions import override

from seit.compression.method import Findings
from seit.compression.post_training import PostTraining
from seit.compression.subject import Subject
from seit.compression.weights.layers import quantizable
from seit.compression.weights.network import layer_bits, quantize_network
from seit.compression.weights.outcome import conclude
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
        bits = layer_bits(quantizable(subject.model), self.bits, EDGE_BITS)
        return conclude(subject, quantize_network(subject, bits))
