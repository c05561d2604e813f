"""Weights of a compressed network in a file: tensors, and a card that tells how to read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from seit.documents import as_record
from seit.models.compression.packed import PackedWeight, WeightGrid, pack_weights

CARD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Differences of a compressed network from the timm model of its settings.

    Attributes:
        quantized: layout of each weight that is stored in few bits, by name.
        program: whether the run predicts by the ONNX file next to its weights, which computes in 8
            bits.
        version: version of this card.
    """

    quantized: Mapping[str, WeightGrid] = field(default_factory=dict)
    program: bool = False
    version: int = CARD_VERSION

    def card(self) -> dict[str, Any]:
        """Return the card of a file of such weights."""
        return asdict(self)

    @classmethod
    def of_card(cls, card: Mapping[str, Any], *, origin: str) -> "Compression":
        """Return what a card tells.

        Raises:
            DamagedError: it is no such card.
        """
        return as_record(card, cls, origin=origin)


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Tensors of a file of weights, and its card."""

    tensors: Mapping[str, Tensor]
    compression: Compression

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        packed: Mapping[str, PackedWeight],
        *,
        program: bool = False,
    ) -> "StoredWeights":
        """Store weights, some of them packed; see `Compression` for ``program``."""
        grids = {name: weight.grid for name, weight in packed.items()}
        compression = Compression(quantized=grids, program=program)
        return cls(tensors=pack_weights(weights, packed), compression=compression)

    def dense(self, *, origin: str) -> dict[str, Tensor]:
        """Return all weights by name, unpacked to float32.

        Memory is bounded by the file: a byte gives at most eight values.

        Raises:
            DamagedError: the tensors do not fit the card.
        """
        tensors = dict(self.tensors)
        unpacked = {
            name: PackedWeight.take(name, grid, tensors, origin=origin).dense()
            for name, grid in self.compression.quantized.items()
        }
        return tensors | unpacked
