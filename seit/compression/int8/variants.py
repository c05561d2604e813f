"""Formats of 8-bit weights and activations, by processor, and which is safer than which.

Kernels for x86 without dot products of bytes multiply unsigned by signed bytes and add pairs of
products in 16 bits, which saturates: weights of 7 bits cannot, nor can unsigned ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from seit.processor import Target


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Format of quantized layers.

    Attributes:
        signed: whether weights are signed and symmetric, or unsigned with a zero point.
        bits: bits of a weight, 7 or 8.
        signed_activations: whether activations are signed.
    """

    signed: bool
    bits: int = 8
    signed_activations: bool = False

    @property
    def name(self) -> str:
        """Name in notes: activations × weights, such as u8 × s7."""
        activations = "s8" if self.signed_activations else "u8"
        return f"{activations} × {'s' if self.signed else 'u'}{self.bits}"


U8S8 = Variant(signed=True)
U8S7 = Variant(signed=True, bits=7)
U8U8 = Variant(signed=False)
S8S8 = Variant(signed=True, signed_activations=True)

DYNAMIC: Mapping[Target, tuple[Variant, ...]] = {
    "avx2": (U8U8, U8S7),
    "vnni": (U8S8, U8S7, U8U8),
    "arm": (U8S8, U8S7, U8U8),
}
"""Formats with ranges of activations taken as they come, the preferred first, then safer ones."""
STATIC: Mapping[Target, tuple[Variant, ...]] = {
    "avx2": (U8S7, U8U8),
    "vnni": (U8S8, U8S7, U8U8),
    "arm": (S8S8, U8S7, U8U8),
}
"""Formats with fixed ranges of activations."""
